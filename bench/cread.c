/*
 * cread: the least that reading a tick's files can cost on this machine.
 *
 *     find TREE/sys/fs/cgroup -type f | cread ROUNDS [PAUSE_SECONDS]
 *
 * Opens every file named on stdin (one path a line) once, then preads all of them ROUNDS times into one buffer, and
 * prints one line of JSON. Only the preads are timed: a collector opens a file once in a pod's life. Nothing is
 * parsed. Every round reads each file with one pread of 64 KiB: no file of a tick is longer, and a second pread to see
 * the end would double the price of memory.stat. Files beyond the descriptor limit, raised to its hard value, are
 * opened and closed at each reading, as the collector does; "held" is the number of the others. With a pause before each
 * round its reads are what they are to a program that sleeps from tick to tick: a processor that wakes up is slower.
 *
 * Exit status: 0, 1 when a file cannot be opened or read, 2 on bad usage. Build: cc -O2 -o cread cread.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 64 * 1024 };

static int64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* As many descriptors as allowed without asking: the default of 1024 is 64 cgroups' worth. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

struct file {
	int fd; /* -1: not held, there was no descriptor left */
	char *path;
};

static void die(const char *path, const char *what)
{
	fprintf(stderr, "cread: %s: %s\n", path, what);
	exit(1);
}

/* Opens every path on stdin; returns their number, the files in *files and how many are held open in *held. */
static size_t open_all(struct file **files, size_t *held)
{
	size_t count = 0, room = 0, line_size = 0;
	int spare = open("/dev/null", O_RDONLY | O_CLOEXEC); /* for the reading of those not held */
	char *line = NULL;
	ssize_t length;

	*files = NULL;
	*held = 0;
	while ((length = getline(&line, &line_size, stdin)) != -1) {
		struct file file;

		if (length > 0 && line[length - 1] == '\n')
			line[--length] = '\0';
		if (length == 0)
			continue;
		file.fd = open(line, O_RDONLY | O_CLOEXEC);
		if (file.fd == -1 && errno != EMFILE)
			die(line, strerror(errno));
		if (file.fd != -1)
			++*held;
		file.path = strdup(line);
		if (count == room) {
			room = room ? 2 * room : 1024;
			*files = realloc(*files, room * sizeof **files);
		}
		if (*files == NULL || file.path == NULL)
			die(line, "out of memory");
		(*files)[count++] = file;
	}
	free(line);
	close(spare);
	return count;
}

static void read_one(const struct file *file)
{
	static char buffer[BUFFER_BYTES];
	int fd = file->fd;

	if (fd == -1)
		fd = open(file->path, O_RDONLY | O_CLOEXEC);
	if (fd == -1 || pread(fd, buffer, sizeof buffer, 0) == -1)
		die(file->path, strerror(errno));
	if (file->fd == -1)
		close(fd);
}

int main(int argc, char **argv)
{
	char *end = NULL;
	long rounds = argc >= 2 ? strtol(argv[1], &end, 10) : 0;
	long pause_seconds = 0;
	size_t count, held;
	struct file *files;
	int64_t wall, cpu;

	if (rounds >= 1 && *end == '\0' && argc == 3)
		pause_seconds = strtol(argv[2], &end, 10);
	if (rounds < 1 || *end != '\0' || argc > 3) {
		fprintf(stderr, "usage: cread ROUNDS [PAUSE_SECONDS] < PATHS\n");
		return 2;
	}
	raise_descriptor_limit();
	count = open_all(&files, &held);
	if (count == 0) {
		fprintf(stderr, "cread: no path on stdin\n");
		return 2;
	}
	wall = now_ns(CLOCK_MONOTONIC);
	cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
	for (long round = 0; round < rounds; round++) {
		if (pause_seconds > 0)
			sleep((unsigned int)pause_seconds);
		for (size_t i = 0; i < count; i++)
			read_one(&files[i]);
	}
	cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	wall = now_ns(CLOCK_MONOTONIC) - wall;
	printf("{\"files\": %zu, \"held\": %zu, \"rounds\": %ld, ", count, held, rounds);
	printf("\"wall_ns_per_file\": %.1f, \"cpu_ns_per_file\": %.1f}\n",
	       (double)wall / (double)rounds / (double)count, (double)cpu / (double)rounds / (double)count);
	return 0;
}
