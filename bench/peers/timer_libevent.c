// Timers in libevent, for timer.bench.ts: create, add, delete and fire a number of them.
//
//   timer_libevent COUNT ROUNDS WINDOW
//
// prints `create`, `add`, `delete` and `fire`, each with the nanoseconds of one operation, the
// median of the rounds. Those that fire have deadlines within WINDOW milliseconds; the clock runs
// when all of them are due.

#include <event2/event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { CREATE, ADD, DELETE, FIRE, OPERATIONS };
enum { WARMUP_ROUNDS = 3, HOUR_MS = 3600000 };

static const char* const names[OPERATIONS] = {"create", "add", "delete", "fire"};
static int fired;
static uint32_t state = 1;

// The same sequence in all programs of this bench: below 1, from a congruential generator.
static double next_random(void) {
  state = state * 1664525U + 1013904223U;
  return state / 4294967296.0;
}

static void on_timeout(evutil_socket_t fd, short what, void* arg) {
  (void)fd, (void)what, (void)arg;
  fired++;
}

static double nanos(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void add_all(struct event** timers, const double* millis, int count) {
  for (int i = 0; i < count; i++) {
    const struct timeval timeout = {(time_t)(millis[i] / 1e3),
                                    (suseconds_t)((long)(millis[i] * 1e3) % 1000000)};
    event_add(timers[i], &timeout);
  }
}

static void sleep_until(double deadline) {
  const double left = deadline - nanos();
  if (left <= 0) return;
  const struct timespec pause = {(time_t)(left / 1e9), (long)left % 1000000000};
  nanosleep(&pause, NULL);
}

static void run_round(struct event_base* base, int count, int window, double* out) {
  struct event** timers = malloc((size_t)count * sizeof *timers);
  double* millis = malloc((size_t)count * sizeof *millis);
  double start = nanos();
  for (int i = 0; i < count; i++) timers[i] = event_new(base, -1, 0, on_timeout, NULL);
  out[CREATE] = nanos() - start;

  for (int i = 0; i < count; i++) millis[i] = 1 + next_random() * HOUR_MS;
  start = nanos();
  add_all(timers, millis, count);
  out[ADD] = nanos() - start;
  start = nanos();
  for (int i = 0; i < count; i++) event_del(timers[i]);
  out[DELETE] = nanos() - start;

  for (int i = 0; i < count; i++) millis[i] = 1 + next_random() * (window - 1);
  add_all(timers, millis, count);
  sleep_until(nanos() + (window + 1) * 1e6);
  fired = 0;
  start = nanos();
  event_base_dispatch(base);
  out[FIRE] = nanos() - start;
  if (fired != count) exit(1);
  for (int i = 0; i < count; i++) event_free(timers[i]);
  free(millis);
  free(timers);
  for (int i = 0; i < OPERATIONS; i++) out[i] /= count;
}

static int by_value(const void* a, const void* b) {
  const double x = *(const double*)a;
  const double y = *(const double*)b;
  return (x > y) - (x < y);
}

int main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: %s COUNT ROUNDS WINDOW\n", argv[0]);
    return 2;
  }
  const int count = atoi(argv[1]);
  const int rounds = atoi(argv[2]);
  const int window = atoi(argv[3]);
  struct event_base* base = event_base_new();
  double unused[OPERATIONS];
  for (int i = 0; i < WARMUP_ROUNDS; i++) run_round(base, 1000, 2, unused);
  double(*results)[OPERATIONS] = malloc((size_t)rounds * sizeof *results);
  for (int i = 0; i < rounds; i++) run_round(base, count, window, results[i]);
  double* values = malloc((size_t)rounds * sizeof *values);
  for (int operation = 0; operation < OPERATIONS; operation++) {
    for (int i = 0; i < rounds; i++) values[i] = results[i][operation];
    qsort(values, (size_t)rounds, sizeof *values, by_value);
    printf("%s %.1f\n", names[operation], values[rounds / 2]);
  }
  return 0;
}
