// One dashboard, drawn by Grafana's own front-end libraries from what Prometheus answered (window.SHOWN, by take.py):
// frames, transformations, units, overrides, graphs, tables and single numbers are theirs. Rows, the variables' bar and
// the bar chart, which are in Grafana's core and in no library, are drawn here.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { lastValueFrom } from 'rxjs';
import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  createTheme,
  dateTime,
  FieldType,
  getDisplayProcessor,
  getFieldDisplayName,
  getFieldDisplayValues,
  Registry,
  standardTransformers,
  standardTransformersRegistry,
  ThemeContext,
  toDataFrame,
  transformDataFrame,
} from '@grafana/data';
import { BigValue, GlobalStyles, PanelChrome, TimeSeries } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { initPluginTranslations } from '@grafana/i18n';

const theme = createTheme({ colors: { mode: 'light' } });
const CELL = 30;
const GAP = 8;
const WIDTH = 1200;
const COLUMN = (WIDTH + GAP) / 24;

standardTransformersRegistry.setInit(() =>
  [
    standardTransformers.mergeTransformer,
    standardTransformers.organizeFieldsTransformer,
    standardTransformers.sortByTransformer,
  ].map((one) => ({ id: one.id, name: one.name, transformation: async () => one, editor: () => null }))
);

// The options that fields have: each is taken as it stands.
const option = (id, isCustom) => ({
  id: isCustom ? `custom.${id}` : id,
  path: id,
  name: id,
  isCustom,
  editor: () => null,
  override: () => null,
  process: (value) => value,
  // As in Grafana, the axis' settings are not for the field that the x-axis is of.
  shouldApply: (field) => !id.startsWith('axis') || field.type === FieldType.number,
});
const PLAIN = ['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'color', 'thresholds', 'mappings', 'links'];
const CUSTOM = [
  ['drawStyle', 'lineInterpolation', 'lineWidth', 'fillOpacity', 'gradientMode', 'showPoints', 'pointSize', 'lineStyle'],
  ['stacking', 'axisPlacement', 'axisLabel', 'axisColorMode', 'axisSoftMin', 'axisSoftMax', 'scaleDistribution', 'hideFrom', 'align', 'cellOptions'],
  ['barAlignment', 'spanNulls', 'thresholdsStyle', 'inspect', 'width', 'axisBorderShow', 'axisCenteredZero'],
].flat();
const registry = new Registry(() => [
  ...PLAIN.map((id) => option(id, false)),
  ...CUSTOM.map((id) => option(id, true)),
]);

const range = {
  from: dateTime(window.SHOWN.from * 1000),
  to: dateTime(window.SHOWN.to * 1000),
  raw: { from: 'now-15m', to: 'now' },
};

// Prometheus' answer as its data source makes frames of it.
function framesOf(panel, answers) {
  if (panel.targets.every((target) => target.format === 'table')) {
    return panel.targets.map((target, index) => {
      const labels = [...new Set(answers[index].flatMap((series) => Object.keys(series.metric)))].sort();
      const name = panel.targets.length > 1 ? `Value #${target.refId}` : 'Value';
      return toDataFrame({
        refId: target.refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: answers[index].map(() => window.SHOWN.to * 1000) },
          ...labels.map((label) => ({
            name: label,
            type: FieldType.string,
            values: answers[index].map((series) => series.metric[label] ?? ''),
          })),
          { name, type: FieldType.number, values: answers[index].map((series) => Number(series.value[1])) },
        ],
      });
    });
  }
  return panel.targets.flatMap((target, index) =>
    answers[index].map((series) => {
      const points = series.values ?? [series.value];
      const legend = target.legendFormat.replace(/\{\{(\w+)\}\}/g, (_, label) => series.metric[label] ?? '');
      return toDataFrame({
        refId: target.refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: points.map((point) => point[0] * 1000) },
          {
            name: 'Value',
            type: FieldType.number,
            labels: series.metric,
            values: points.map((point) => (point[1] === null ? null : Number(point[1]))),
            config: legend === '__auto' ? {} : { displayNameFromDS: legend },
          },
        ],
      });
    })
  );
}

async function prepared(panel, answers) {
  const raw = framesOf(panel, answers).filter((frame) => frame.length);
  const changed = await lastValueFrom(transformDataFrame(panel.transformations ?? [], raw));
  const found = applyFieldOverrides({
    data: changed,
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registry,
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
  cacheFieldDisplayNames(found);
  return found;
}

function Bars({ frame, width, height }) {
  const [names, ...values] = [frame.fields.find((f) => f.type === FieldType.string), ...frame.fields.filter((f) => f.type === FieldType.number)];
  const most = Math.max(...values.flatMap((field) => field.values));
  const colors = ['#73BF69', '#F2CC0C'];
  const line = (height - 24) / names.values.length;
  return (
    <div style={{ fontSize: 11, width, height, position: 'relative' }}>
      {names.values.map((name, row) => (
        <div key={name} style={{ display: 'flex', height: line, alignItems: 'center' }}>
          <div style={{ width: 150, textAlign: 'right', paddingRight: 6 }}>{name}</div>
          <div style={{ flex: 1 }}>
            {values.map((field, at) => (
              <div
                key={at}
                style={{ background: colors[at], height: line / 2 - 2, width: `${(100 * field.values[row]) / most}%`, marginTop: 1 }}
              />
            ))}
          </div>
        </div>
      ))}
      <div style={{ textAlign: 'center' }}>
        {values.map((field, at) => (
          <span key={at} style={{ margin: 8 }}>
            <span style={{ background: colors[at], display: 'inline-block', width: 14, height: 4, marginRight: 4, verticalAlign: 'middle' }} />
            {getFieldDisplayName(field, frame)}
          </span>
        ))}
      </div>
    </div>
  );
}

function Inner({ panel, frames, width, height }) {
  if (!frames.length) {
    const says = panel.fieldConfig.defaults.noValue ?? 'No data';
    if (panel.type !== 'stat') {
      return <div style={{ padding: 30, textAlign: 'center', color: theme.colors.text.secondary }}>{says}</div>;
    }
    return <BigValue theme={theme} width={width} height={height} value={{ text: says, numeric: NaN }} colorMode="value" graphMode="none" justifyMode="center" />;
  }
  if (panel.type === 'timeseries') {
    return (
      <TimeSeries frames={frames} structureRev={1} timeRange={range} timeZone="utc" width={width} height={height} legend={panel.options.legend} options={panel.options}>
        {() => null}
      </TimeSeries>
    );
  }
  if (panel.type === 'stat') {
    const [value] = getFieldDisplayValues({
      fieldConfig: panel.fieldConfig,
      reduceOptions: panel.options.reduceOptions,
      replaceVariables: (text) => text,
      theme,
      data: frames,
      timeZone: 'utc',
    });
    return <BigValue theme={theme} width={width} height={height} value={value.display} colorMode={panel.options.colorMode} graphMode="none" textMode={panel.options.textMode} justifyMode="center" />;
  }
  if (panel.type === 'table') {
    return (
      <TableNG
        data={frames[0]}
        width={width}
        height={height}
        initialSortBy={panel.options.sortBy}
        cellHeight="sm"
        enableVirtualization={false}
        getActions={() => []}
        fieldConfig={panel.fieldConfig}
        timeRange={range}
      />
    );
  }
  return <Bars frame={frames[0]} width={width} height={height} />;
}

function place({ x, y, w, h }) {
  return { position: 'absolute', left: x * COLUMN, top: y * (CELL + GAP), width: w * COLUMN - GAP, height: h * (CELL + GAP) - GAP };
}

function Board({ shown }) {
  const bottom = Math.max(...shown.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return (
    <div style={{ padding: 12, background: theme.colors.background.canvas, width: WIDTH + 24 }} id="board">
      <div style={{ fontSize: 18, fontWeight: 500, marginBottom: 8 }}>
        {shown.title}
        {shown.variables.map(([label, value]) => (
          <span key={label} style={{ fontSize: 12, marginLeft: 14, border: `1px solid ${theme.colors.border.medium}`, padding: '3px 8px' }}>
            <span style={{ color: theme.colors.text.secondary }}>{label}</span> {value}
          </span>
        ))}
      </div>
      <div style={{ position: 'relative', height: bottom * (CELL + GAP) }}>
        {shown.panels.map((panel) => {
          const at = place(panel.gridPos);
          if (panel.type === 'row') {
            return (
              <div key={panel.id} style={{ ...at, paddingTop: 8, fontWeight: 500, fontSize: 14 }}>
                {panel.collapsed ? '› ' : '⌄ '} {panel.title}
              </div>
            );
          }
          return (
            <div key={panel.id} style={at}>
              <PanelChrome title={panel.title} width={at.width} height={at.height} padding="sm">
                {(width, height) => <Inner panel={panel} frames={panel.frames} width={width} height={height} />}
              </PanelChrome>
            </div>
          );
        })}
      </div>
    </div>
  );
}

async function main() {
  await initPluginTranslations('podtally');
  const shown = window.SHOWN;
  for (const panel of shown.panels) {
    if (panel.type !== 'row') {
      panel.frames = await prepared(panel, shown.answers[panel.id]);
    }
  }
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <Board shown={shown} />
    </ThemeContext.Provider>
  );
  setTimeout(() => document.body.setAttribute('data-drawn', 'yes'), 1500);
}

main().catch((error) => {
  document.body.innerText = `${error.stack}`;
});
