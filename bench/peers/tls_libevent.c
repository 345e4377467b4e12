// Servers on libevent's OpenSSL bufferevents that print their port, for tls.bench.ts. One thread,
// one base, one bufferevent on each socket; what is moved is moved without a copy.
//
//   PROGRAM CERTIFICATE KEY echo|sink|source BYTES

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 64 * 1024 };

static SSL_CTX *context;
static const char *role;
static long long bytes;
static char piece[PIECE];

static void on_read(struct bufferevent *bev, void *arg) {
  (void)arg;
  bufferevent_write_buffer(bev, bufferevent_get_input(bev));
}

static void on_sink(struct bufferevent *bev, void *arg) {
  (void)arg;
  struct evbuffer *input = bufferevent_get_input(bev);
  evbuffer_drain(input, evbuffer_get_length(input));
}

static void on_more(struct bufferevent *bev, void *arg) {
  long long *left = arg;
  struct evbuffer *output = bufferevent_get_output(bev);
  if (*left == 0) {
    bufferevent_free(bev);
    free(left);
    return;
  }
  while (*left > 0 && evbuffer_get_length(output) <= PIECE) {
    const size_t count = *left < PIECE ? (size_t)*left : PIECE;
    evbuffer_add_reference(output, piece, count, NULL, NULL);
    *left -= (long long)count;
  }
}

static void on_event(struct bufferevent *bev, short what, void *arg) {
  (void)arg;
  if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) bufferevent_free(bev);
}

static void on_ask(struct bufferevent *bev, void *arg) {
  (void)arg;
  on_sink(bev, NULL);
  long long *left = malloc(sizeof *left);
  if (left == NULL) exit(3);
  *left = bytes;
  bufferevent_setcb(bev, on_sink, on_more, on_event, left);
  on_more(bev, left);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *peer,
                      int length, void *arg) {
  (void)peer;
  (void)length;
  (void)arg;
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct event_base *base = evconnlistener_get_base(listener);
  SSL *ssl = SSL_new(context);
  struct bufferevent *bev = bufferevent_openssl_socket_new(
      base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
  if (ssl == NULL || bev == NULL) exit(3);
  bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
  bufferevent_data_cb reads =
      strcmp(role, "echo") == 0 ? on_read : strcmp(role, "sink") == 0 ? on_sink : on_ask;
  bufferevent_setcb(bev, reads, NULL, on_event, NULL);
  // Its default of 16 KiB a read would cost it a second one for every large message.
  bufferevent_set_max_single_read(bev, 65536);
  bufferevent_set_max_single_write(bev, 65536);
  bufferevent_enable(bev, EV_READ | EV_WRITE);
}

static void on_signal(evutil_socket_t signal, short what, void *arg) {
  (void)signal;
  (void)what;
  event_base_loopbreak(arg);
}

int main(int count, char **arguments) {
  if (count != 5) return 2;
  signal(SIGPIPE, SIG_IGN);
  role = arguments[3];
  bytes = atoll(arguments[4]);
  memset(piece, 'x', sizeof piece);
  context = SSL_CTX_new(TLS_server_method());
  if (context == NULL || SSL_CTX_use_certificate_chain_file(context, arguments[1]) != 1 ||
      SSL_CTX_use_PrivateKey_file(context, arguments[2], SSL_FILETYPE_PEM) != 1)
    return 3;
  // As libevent's manual advises for many connections, and as ours does.
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  struct event_base *base = event_base_new();
  if (base == NULL) return 3;
  struct sockaddr_in address;
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  struct evconnlistener *listener = evconnlistener_new_bind(
      base, on_accept, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, 511,
      (struct sockaddr *)&address, sizeof address);
  if (listener == NULL) return 3;
  socklen_t length = sizeof address;
  getsockname(evconnlistener_get_fd(listener), (struct sockaddr *)&address, &length);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  struct event *term = evsignal_new(base, SIGTERM, on_signal, base);
  event_add(term, NULL);
  event_base_dispatch(base);
  event_free(term);
  evconnlistener_free(listener);
  event_base_free(base);
  SSL_CTX_free(context);
  return 0;
}
