// A standalone cAdvisor made of the library's own parts, to measure podtally beside it. cAdvisor's program is a module
// of its own that module proxies do not serve; this one watches the same cgroups with the same manager, and answers
// /metrics with the same collector. The library's own flags (-housekeeping_interval, -containerd ...) hold.
package main

import (
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/google/cadvisor/cache/memory"
	"github.com/google/cadvisor/container"
	_ "github.com/google/cadvisor/container/containerd/install"
	_ "github.com/google/cadvisor/container/systemd/install"
	v2 "github.com/google/cadvisor/info/v2"
	"github.com/google/cadvisor/manager"
	"github.com/google/cadvisor/metrics"
	"github.com/google/cadvisor/utils/sysfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/utils/clock"
)

func main() {
	listen := flag.String("listen", ":8080", "where to answer")
	flag.Parse()
	wanted := container.MetricSet{
		container.CpuUsageMetrics:    struct{}{},
		container.MemoryUsageMetrics: struct{}{},
		container.PressureMetrics:    struct{}{},
	}
	dynamic := false
	watching, err := manager.New(memory.New(2*time.Minute, nil), sysfs.NewRealSysFs(),
		manager.HousekeepingConfig{Interval: manager.HousekeepingInterval, AllowDynamic: &dynamic},
		wanted, http.DefaultClient, []string{"/kubepods", "/kubepods.slice"}, nil, "", 0)
	if err != nil {
		log.Fatal(err)
	}
	if err := watching.Start(); err != nil {
		log.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.NewPrometheusCollector(watching, nil, wanted, clock.RealClock{},
		v2.RequestOptions{IdType: v2.TypeName, Count: 1, Recursive: true}))
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	log.Fatal(http.ListenAndServe(*listen, nil))
}
