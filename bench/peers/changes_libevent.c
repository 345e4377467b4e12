// What a base of libevent tells the kernel, beside bench/peers/changes_multiloop.ts. The bench
// counts the system calls from outside.
//
//   changes_libevent OPERATION TURNS
//
// does the operation once in each of so many turns, in the callback of an event that is always
// ready:
//   nothing      what the turns cost by themselves
//   add-delete   adds an event and deletes it again
//   again        an event that is not persistent adds itself again
//   read-write   a descriptor with a READ event gets, or loses, a WRITE event
//   fresh        add-delete on a descriptor that the base has never had

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct event_base* base;
static struct event *busy, *reader, *writer;
static const char* operation;
static int near_fd, writing;

static void nothing(evutil_socket_t fd, short what, void* arg) {
  (void)fd, (void)what, (void)arg;
}

static void on_busy(evutil_socket_t fd, short what, void* arg) {
  (void)fd, (void)what, (void)arg;
  if (strcmp(operation, "add-delete") == 0) {
    event_add(reader, NULL);
    event_del(reader);
  } else if (strcmp(operation, "again") == 0) {
    event_add(busy, NULL);
  } else if (strcmp(operation, "read-write") == 0) {
    if (writing)
      event_del(writer);
    else
      event_add(writer, NULL);
    writing = !writing;
  } else if (strcmp(operation, "fresh") == 0) {
    struct event* event = event_new(base, dup(near_fd), EV_READ | EV_PERSIST, nothing, NULL);
    event_add(event, NULL);
    event_free(event);
  }
}

int main(int argc, char** argv) {
  int pair[2], other[2];
  if (argc != 3 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 ||
      socketpair(AF_UNIX, SOCK_STREAM, 0, other) != 0) {
    fprintf(stderr, "usage: changes_libevent OPERATION TURNS\n");
    return 2;
  }
  operation = argv[1];
  near_fd = other[0];
  struct event_config* config = event_config_new();
  event_config_avoid_method(config, "poll");
  event_config_avoid_method(config, "select");
  base = event_base_new_with_config(config);
  const short once = strcmp(operation, "again") == 0 ? 0 : EV_PERSIST;
  busy = event_new(base, pair[0], (short)(EV_WRITE | once), on_busy, NULL);
  reader = event_new(base, near_fd, EV_READ | EV_PERSIST, nothing, NULL);
  writer = event_new(base, near_fd, EV_WRITE | EV_PERSIST, nothing, NULL);
  if (strcmp(operation, "read-write") == 0) event_add(reader, NULL);
  event_add(busy, NULL);
  for (int turn = atoi(argv[2]); turn > 0; turn--)
    event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
  return 0;
}
