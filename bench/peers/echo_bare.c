// An echo server of nothing but system calls that prints its port, for echo.bench.ts: one
// epoll_wait for a pass, one recv and one send for a message, and no state of a connection but its
// number. No server that makes these calls costs less, so it tells what the kernel's share is.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 1024, BUFFER_BYTES = 65536 };

static void watch(int epoll, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) exit(3);
}

// The peer waits for each answer, so an answer always fits into the socket's memory but for a
// message that is larger than that: then this process waits for it.
static void echo(int fd) {
  static char buffer[BUFFER_BYTES];
  ssize_t count = recv(fd, buffer, sizeof buffer, 0);
  if (count <= 0) {
    close(fd);
    return;
  }
  for (ssize_t sent = 0; sent < count;) {
    ssize_t part = send(fd, buffer + sent, (size_t)(count - sent), 0);
    if (part < 0) {
      close(fd);
      return;
    }
    sent += part;
  }
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address;
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) return 3;
  if (listen(listener, 511) != 0) return 3;
  socklen_t length = sizeof address;
  getsockname(listener, (struct sockaddr *)&address, &length);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  watch(epoll, listener);
  for (;;) {
    static struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(epoll, events, EVENTS_MAX, -1);
    for (int i = 0; i < count; ++i) {
      if (events[i].data.fd != listener) {
        echo(events[i].data.fd);
        continue;
      }
      int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
      if (fd < 0) continue;
      int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      watch(epoll, fd);
    }
  }
}
