// The signal hub: the one place of the process that catches signals for bases. A thread of its own
// has a libuv loop with one uv_signal_t for each signal that somebody asked for, and puts what
// comes into the boxes of the bases that did (libevent delivers to one base only, the last to ask).
//
// It uses libuv's handlers and no sigaction(2) of ours: Node's process.on() uses the same, libuv
// keeps as many watchers of a signal as are wanted on as many loops, and restores the default
// action after the last. A handler of our own would deafen Node's, and Node's would deafen ours.
// A signal that was ignored before is caught from then on, for nobody when nobody waits.
//
// The thread starts with the first signal and sleeps when there is none; it is never joined, and
// the hub never destroyed. Any thread may call subscribe() and unsubscribe().
#pragma once

#include "../core/signal_box.h"

namespace multiloop {

SignalSource* signal_hub();

}  // namespace multiloop
