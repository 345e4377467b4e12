// A TLS echo server of nothing but system calls and OpenSSL that prints its port, for tls.bench.ts:
// one epoll_wait for a pass, one read and one write for a message, and no state of a connection but
// its SSL. No server with this library that makes these calls costs less, so it tells what the
// share of the kernel and of the library is.
//
//   PROGRAM CERTIFICATE KEY

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 1024, BUFFER_BYTES = 65536 };

// By descriptor.
static SSL *sessions[65536];

static void leave(int fd) {
  SSL_free(sessions[fd]);
  sessions[fd] = NULL;
  close(fd);
}

// The peer waits for each answer, so what comes is one message, or a part of one, and its answer
// fits into the socket's memory.
static void echo(int fd) {
  static char buffer[BUFFER_BYTES];
  SSL *ssl = sessions[fd];
  do {
    int count = SSL_read(ssl, buffer, sizeof buffer);
    if (count <= 0) {
      if (SSL_get_error(ssl, count) != SSL_ERROR_WANT_READ) leave(fd);
      return;
    }
    if (SSL_write(ssl, buffer, count) != count) {
      leave(fd);
      return;
    }
  } while (SSL_has_pending(ssl));
}

static void welcome(int epoll, int fd, SSL_CTX *context) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  SSL *ssl = SSL_new(context);
  if (ssl == NULL || fd >= 65536 || SSL_set_fd(ssl, fd) != 1) exit(3);
  SSL_set_accept_state(ssl);
  sessions[fd] = ssl;
  struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) exit(3);
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  signal(SIGPIPE, SIG_IGN);
  SSL_CTX *context = SSL_CTX_new(TLS_server_method());
  if (context == NULL || SSL_CTX_use_certificate_chain_file(context, arguments[1]) != 1 ||
      SSL_CTX_use_PrivateKey_file(context, arguments[2], SSL_FILETYPE_PEM) != 1)
    return 3;
  // A record's header and body with one read.
  SSL_CTX_set_read_ahead(context, 1);
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
  struct epoll_event event = {.events = EPOLLIN, .data = {.fd = listener}};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0) return 3;
  for (;;) {
    static struct epoll_event events[EVENTS_MAX];
    int ready = epoll_wait(epoll, events, EVENTS_MAX, -1);
    for (int i = 0; i < ready; ++i) {
      if (events[i].data.fd != listener) {
        echo(events[i].data.fd);
        continue;
      }
      int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd >= 0) welcome(epoll, fd, context);
    }
  }
}
