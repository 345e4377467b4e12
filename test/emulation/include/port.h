// <port.h> of illumos for Linux: the functions of port_create(3C), port_associate(3C),
// port_get(3C), port_send(3C) and port_alert(3C), emulated by test/emulation/evport.cc, which says
// how far.
#pragma once

#include <sys/types.h>
#include <time.h>

#include <cstdint>

using uint_t = unsigned int;
using ushort_t = unsigned short;

#define PORT_SOURCE_AIO 1
#define PORT_SOURCE_TIMER 2
#define PORT_SOURCE_USER 3
#define PORT_SOURCE_FD 4
#define PORT_SOURCE_ALERT 5
#define PORT_SOURCE_MQ 6
#define PORT_SOURCE_FILE 7

#define PORT_ALERT_SET 0x01
#define PORT_ALERT_UPDATE 0x02

struct port_event {
  int portev_events;
  ushort_t portev_source;
  ushort_t portev_pad;
  uintptr_t portev_object;
  void* portev_user;
};
using port_event_t = port_event;

int port_create();
int port_associate(int port, int source, uintptr_t object, int events, void* user);
int port_dissociate(int port, int source, uintptr_t object);
int port_get(int port, port_event_t* event, timespec* timeout);
int port_getn(int port, port_event_t list[], uint_t max, uint_t* nget, timespec* timeout);
int port_send(int port, int events, void* user);
int port_sendn(int ports[], int errors[], uint_t nent, int events, void* user);
int port_alert(int port, int flags, int events, void* user);

namespace emulated_port {

// The resource control process.max-port-events, read by port_create(). Answers what it was.
uint_t set_max_events(uint_t limit);
constexpr uint_t kMaxEvents = 65'536;

}  // namespace emulated_port
