// kqueue's interface, for the emulation of it (../../kqueue.cc): what kqueue(2) of FreeBSD 14 and
// of macOS document, with the names and values that programs are compiled with on macOS. Tests
// only.
#pragma once

// A function that is named like a struct is no name of ours to change: no warnings of that.
#pragma GCC system_header

#include <stdint.h>
#include <time.h>

struct kevent {
  uintptr_t ident;
  int16_t filter;
  uint16_t flags;
  uint32_t fflags;
  intptr_t data;
  void* udata;
};

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_USER (-10)

// What to do …
#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_DISABLE 0x0008
// … how …
#define EV_ONESHOT 0x0010
#define EV_CLEAR 0x0020
#define EV_RECEIPT 0x0040
#define EV_DISPATCH 0x0080
// … and what is answered.
#define EV_ERROR 0x4000
#define EV_EOF 0x8000

// Of EVFILT_READ and EVFILT_WRITE: `data` is a low-water mark.
#define NOTE_LOWAT 0x00000001

// Of EVFILT_USER: 24 bits for the user, what to do with them, and the trigger.
#define NOTE_FFNOP 0x00000000
#define NOTE_FFAND 0x40000000
#define NOTE_FFOR 0x80000000
#define NOTE_FFCOPY 0xc0000000
#define NOTE_FFCTRLMASK 0xc0000000
#define NOTE_FFLAGSMASK 0x00ffffff
#define NOTE_TRIGGER 0x01000000

#ifdef __cplusplus
extern "C" {
#endif

int kqueue(void);
int kevent(int kq, const struct kevent* changelist, int nchanges, struct kevent* eventlist,
           int nevents, const struct timespec* timeout);

#ifdef __cplusplus
}
#endif
