// libevent's benchmark beside bench/peers/seed_multiloop.ts, written anew from what it does: a ring
// of socket pairs, a READ|PERSIST event on the first socket of each. A run makes some of them
// readable and then counts the time until as many bytes were read as were written; every read
// passes a byte on to the next pair of the ring as long as the budget of writes lasts.
//
//   seed_libevent BACKEND PAIRS ACTIVE WRITES [THREADS]
//
// prints the microseconds of each of 25 runs, one a line. THREADS are idle ones beside the loop's:
// with any, the kernel counts references to the descriptors that a call looks at.

#include <event2/event.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { RUNS = 25, WARMUP_RUNS = 3 };  // nothing is compiled here, so caches are all that warms up

struct pair {
  int near, far;
  struct event* event;
};

static struct pair* pairs;
static int pair_count;
static int writes_left;  // the budget of the run
static int bytes_written, bytes_read;

static void fail(const char* what) {
  perror(what);
  exit(1);
}

static void write_to(int index) {
  if (write(pairs[index].far, "e", 1) != 1) fail("write");
  bytes_written++;
}

static void on_readable(evutil_socket_t fd, short what, void* arg) {
  const int index = (int)((struct pair*)arg - pairs);
  char byte;
  (void)what;
  if (read(fd, &byte, 1) != 1) fail("read");
  bytes_read++;
  if (writes_left == 0) return;
  writes_left--;
  write_to(index + 1 < pair_count ? index + 1 : 0);
}

static double micros(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

// The one way to choose a backend is to avoid all others.
static struct event_base* base_with(const char* backend) {
  struct event_config* config = event_config_new();
  for (const char** method = event_get_supported_methods(); *method != NULL; method++)
    if (strcmp(*method, backend) != 0) event_config_avoid_method(config, *method);
  struct event_base* base = event_base_new_with_config(config);
  event_config_free(config);
  if (base == NULL || strcmp(event_base_get_method(base), backend) != 0) {
    fprintf(stderr, "this libevent has no %s\n", backend);
    exit(1);
  }
  return base;
}

static double run(struct event_base* base, int active, int writes) {
  for (int i = 0; i < pair_count; i++) {
    event_del(pairs[i].event);
    if (event_add(pairs[i].event, NULL) != 0) fail("event_add");
  }
  event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
  writes_left = writes;
  bytes_written = bytes_read = 0;
  for (int i = 0; i < active; i++) write_to(i * (pair_count / active));
  const double start = micros();
  do {
    event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
  } while (bytes_read != bytes_written);
  return micros() - start;
}

static void* idle(void* unused) {
  for (;;) pause();
  return unused;
}

int main(int argc, char** argv) {
  if (argc != 5 && argc != 6) {
    fprintf(stderr, "usage: %s BACKEND PAIRS ACTIVE WRITES [THREADS]\n", argv[0]);
    return 2;
  }
  for (int i = argc == 6 ? atoi(argv[5]) : 0; i > 0; i--) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, idle, NULL) != 0) fail("pthread_create");
  }
  pair_count = atoi(argv[2]);
  const int active = atoi(argv[3]);
  const int writes = atoi(argv[4]);
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) fail("getrlimit");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) fail("setrlimit");

  struct event_base* base = base_with(argv[1]);
  pairs = calloc((size_t)pair_count, sizeof *pairs);
  for (int i = 0; i < pair_count; i++) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) fail("socketpair");
    if (evutil_make_socket_nonblocking(fds[0]) != 0) fail("fcntl");
    if (evutil_make_socket_nonblocking(fds[1]) != 0) fail("fcntl");
    pairs[i].near = fds[0];
    pairs[i].far = fds[1];
    pairs[i].event = event_new(base, fds[0], EV_READ | EV_PERSIST, on_readable, &pairs[i]);
  }
  for (int i = 0; i < WARMUP_RUNS; i++) run(base, active, writes);
  for (int i = 0; i < RUNS; i++) printf("%.1f\n", run(base, active, writes));
  return 0;
}
