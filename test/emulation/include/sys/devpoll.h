// <sys/devpoll.h> of illumos for Linux: the device of poll(7D), emulated by
// test/emulation/devpoll.cc. Linux has no such file to open, so who includes this calls the
// functions below in place of the system's: ML_DEVPOLL::open("/dev/poll", …).
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/types.h>

#ifndef POLLREMOVE
#define POLLREMOVE 0x1000
#endif

#define DP_POLL (0xD000 | 1)
#define DP_ISPOLLED (0xD000 | 2)

struct dvpoll {
  pollfd* dp_fds;
  nfds_t dp_nfds;
  int dp_timeout;  // milliseconds
  sigset_t* dp_setp;
};
using dvpoll_t = dvpoll;

#define ML_DEVPOLL ::emulated_devpoll

namespace emulated_devpoll {

int open(const char* path, int flags);
ssize_t pwrite(int fd, const void* from, size_t length, off_t offset);
int ioctl(int fd, unsigned long request, void* argument);

}  // namespace emulated_devpoll
