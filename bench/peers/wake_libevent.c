// Wake-ups between two threads with libevent, for wake.bench.ts.
//
//   wake_libevent ping ROUNDS       prints `p50`, `p99` and `mean`: half a round trip, microseconds
//   wake_libevent flood MESSAGES    prints `message`: microseconds of one of many in one direction
//
// Each thread runs a base of its own. A wake-up is event_active() of the other base's event, which
// libevent passes on through an eventfd. It carries nothing and those that come together are one,
// so the flood has a list under a lock beside it, as programs have, and activates the event when
// the list was empty.

#include <event2/event.h>
#include <event2/thread.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WARMUP_ROUNDS = 2000 };

struct message {
  double posted;
  struct message* next;
};

struct side {
  struct event_base* base;
  struct event* woken;
};

static struct side near, far;
static int total, seen;

static double* round_trips;
static double round_start;

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct message *list_first, **list_end = &list_first;
static double flood_start, flood_end;

static double micros(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

// ── ping ──

static void send_ping(void) {
  round_start = micros();
  event_active(far.woken, EV_READ, 0);
}

static void on_ping(evutil_socket_t fd, short what, void* arg) {
  (void)fd, (void)what, (void)arg;
  event_active(near.woken, EV_READ, 0);
}

static void on_pong(evutil_socket_t fd, short what, void* arg) {
  (void)fd, (void)what, (void)arg;
  const int round = seen++ - WARMUP_ROUNDS;
  if (round >= 0) round_trips[round] = micros() - round_start;
  if (round + 1 < total) {
    send_ping();
    return;
  }
  event_base_loopbreak(near.base);
  event_base_loopbreak(far.base);
}

static int by_value(const void* a, const void* b) {
  const double x = *(const double*)a;
  const double y = *(const double*)b;
  return (x > y) - (x < y);
}

static void print_ping(void) {
  double sum = 0;
  for (int i = 0; i < total; i++) sum += round_trips[i];
  qsort(round_trips, (size_t)total, sizeof *round_trips, by_value);
  printf("p50 %.3f\n", round_trips[total / 2] / 2);
  printf("p99 %.3f\n", round_trips[(int)(total * 0.99)] / 2);
  printf("mean %.3f\n", sum / total / 2);
}

// ── flood ──

static void post(double posted) {
  struct message* message = malloc(sizeof *message);
  message->posted = posted;
  message->next = NULL;
  pthread_mutex_lock(&list_lock);
  const int was_empty = list_first == NULL;
  *list_end = message;
  list_end = &message->next;
  pthread_mutex_unlock(&list_lock);
  if (was_empty) event_active(near.woken, EV_READ, 0);
}

static void on_messages(evutil_socket_t fd, short what, void* arg) {
  (void)fd, (void)what, (void)arg;
  pthread_mutex_lock(&list_lock);
  struct message* message = list_first;
  list_first = NULL;
  list_end = &list_first;
  pthread_mutex_unlock(&list_lock);
  while (message != NULL) {
    struct message* next = message->next;
    if (seen++ == total / 10) flood_start = message->posted;
    free(message);
    message = next;
  }
  if (seen < total) return;
  flood_end = micros();
  event_base_loopbreak(near.base);
}

// ── threads ──

static void open_side(struct side* side, event_callback_fn callback) {
  side->base = event_base_new();
  side->woken = event_new(side->base, -1, EV_PERSIST, callback, NULL);
}

static void* run_far(void* arg) {
  (void)arg;
  event_base_loop(far.base, EVLOOP_NO_EXIT_ON_EMPTY);
  return NULL;
}

static void* produce(void* arg) {
  (void)arg;
  // The first tenth finds threads that are still starting; it does not count.
  for (int i = 0; i < total; i++) post(i == total / 10 ? micros() : 0);
  return NULL;
}

int main(int argc, char** argv) {
  const int ping = argc == 3 && strcmp(argv[1], "ping") == 0;
  if (argc != 3 || (!ping && strcmp(argv[1], "flood") != 0)) {
    fprintf(stderr, "usage: %s ping ROUNDS | flood MESSAGES\n", argv[0]);
    return 2;
  }
  total = atoi(argv[2]);
  if (total < 10) return 2;
  if (evthread_use_pthreads() != 0) return 1;
  open_side(&near, ping ? on_pong : on_messages);
  open_side(&far, on_ping);
  round_trips = calloc((size_t)total, sizeof *round_trips);
  pthread_t thread;
  if (pthread_create(&thread, NULL, ping ? run_far : produce, NULL) != 0) return 1;
  if (ping) send_ping();
  event_base_loop(near.base, EVLOOP_NO_EXIT_ON_EMPTY);
  pthread_join(thread, NULL);
  if (ping)
    print_ping();
  else
    printf("message %.4f\n", (flood_end - flood_start) / (total - total / 10));
  return 0;
}
