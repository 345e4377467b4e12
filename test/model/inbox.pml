/*
 * The protocol between threads, as a model for spin: inbox, waker, sleep, release and ledger of
 * native/core/{inbox,handoff,ledger}.cc. inbox_model.test.ts verifies it, and that it finds each of the
 * mutations at the places marked so wrong.
 *
 * Two loops and a coordinator. The coordinator accepts descriptors and hands each to a loop; a loop
 * takes what comes and closes it, keeps it, or moves it to the other. A loop may die at any moment:
 * its release closes the inbox, returns what waits in it, and settles what it owns, some of which
 * is at a boundary and goes back too. What is one `atomic` here is one instruction of ours on
 * shared memory, together with what no other thread could see or disturb. Memory is sequentially
 * consistent here, which the fences and the orders of the atomics see to there.
 *
 * Checked: no assertion fails, and no thread waits for ever (an invalid end state, which a lost
 * wake-up would be). At the end every descriptor is closed, once.
 */

#define FDS 2
#define LOOPS 2
#define COORDINATOR 2 /* its inbox; the loops have 0 and 1 */
#define INBOXES 3
#ifndef CAPACITY
#define CAPACITY 1
#endif
#define NOBODY 7
#define STOP 14 /* a message without a descriptor */
#define NONE 15

/* The ledger: state and owner of each descriptor, one word there and one step here. */
mtype = { FREE, OWNED, WAITING, CLOSED };
mtype state[FDS];
byte owner[FDS];
byte closes[FDS];

/* An inbox: a ring in which a place is claimed (tail) and then published, and a closed bit. */
typedef Inbox {
  byte ring[CAPACITY]; /* NONE: not published */
  byte head;
  byte tail;
  byte used; /* places that are claimed */
  bool closed;
  bool drained; /* nothing may be published any more */
  bool sleeping;
  bool awake /* the waker, an eventfd, is readable */
};
Inbox inbox[INBOXES];
byte released; /* loops whose release is over */

mtype = { OK, FULL, GONE };

#define PUBLISHED(at) (inbox[at].ring[inbox[at].head] != NONE)

/* Inbox::push(), first half: compare-exchange of the tail, which has the closed bit. */
inline claim(to) {
  if
#ifndef CLOSED_BESIDE_TAIL
  :: inbox[to].closed -> result = GONE
#else
  :: isClosed -> result = GONE /* Mutation: the bit was looked at before. */
#endif
  :: else ->
    if
    :: inbox[to].used == CAPACITY -> result = FULL
    :: else ->
      result = OK;
      place = inbox[to].tail;
      inbox[to].tail = (inbox[to].tail + 1) % CAPACITY;
      inbox[to].used++
    fi
  fi
}
/* Second half: the place's sequence. */
inline publish(to, message) {
  atomic {
    assert(!inbox[to].drained && inbox[to].ring[place] == NONE);
    inbox[to].ring[place] = message;
    place = 0
  }
}

#ifdef CLOSED_BESIDE_TAIL
#define LOOK(to) isClosed = inbox[to].closed;
#else
#define LOOK(to)
#endif

/* Inbox::wake_sleeper(): sleeping.exchange(false), and the write to the waker. */
inline wake(to) {
  atomic {
    if
    :: inbox[to].sleeping -> inbox[to].sleeping = false; inbox[to].awake = true
    :: else
    fi
  }
}

inline pop(at) {
  fd = inbox[at].ring[inbox[at].head];
  inbox[at].ring[inbox[at].head] = NONE;
  inbox[at].head = (inbox[at].head + 1) % CAPACITY;
  inbox[at].used--
}

inline change(id, was, by, next, heir) {
  assert(state[id] == was && owner[id] == by);
  state[id] = next;
  owner[id] = heir
}
inline close_fd(id, was, by) {
  change(id, was, by, CLOSED, NOBODY);
  closes[id]++;
  assert(closes[id] == 1)
}

/* send() of handoff.cc: owned(from) -> inbox(to) before the push, and back if that fails. */
inline send(id, from, to) {
  LOOK(to)
  atomic {
    change(id, OWNED, from, WAITING, to);
    claim(to);
    if
    :: result == OK
    :: else ->
#ifdef NOT_TAKEN_BACK
      skip /* Mutation: as if it were under way. */
#else
      change(id, WAITING, to, OWNED, from)
#endif
    fi
  }
  if
  :: result == OK -> publish(to, id)
  :: else
  fi
}

/* Base::wait(): announce the sleep, look again, wait for the waker; then awake() and drain(). */
inline sleep(at) {
  inbox[at].sleeping = true;
  if
#ifndef NO_SECOND_LOOK
  :: PUBLISHED(at) -> inbox[at].sleeping = false
  :: !PUBLISHED(at) ->
#else
  :: true -> /* Mutation. */
#endif
    atomic { inbox[at].awake; inbox[at].sleeping = false; inbox[at].awake = false }
  fi
}

/* release_loop(). */
inline release(me) {
  inbox[me].closed = true;
#ifndef NO_LAST_DRAIN
  do
  :: atomic { inbox[me].used == 0 -> inbox[me].drained = true; break }
  :: PUBLISHED(me) -> /* else one is claimed, and will be published soon */
    LOOK(COORDINATOR)
    atomic {
      pop(me);
      if
      :: fd == STOP -> result = GONE
      :: else ->
        /* return_descriptor() */
        change(fd, WAITING, me, WAITING, COORDINATOR);
        claim(COORDINATOR);
        if
        :: result != OK -> close_fd(fd, WAITING, COORDINATOR)
        :: else
        fi
      fi
    }
    if
    :: result == OK -> publish(COORDINATOR, fd)
    :: else
    fi
  od;
#else
  skip; /* Mutation: what waits in the inbox is forgotten. */
#endif
  /* settle_owned(): a walk over the ledger. */
  fd = 0;
  do
  :: fd == FDS -> break
  :: fd < FDS ->
    if
    :: state[fd] == OWNED && owner[fd] == me ->
      result = GONE;
      if
      :: send(fd, me, COORDINATOR) /* it is at a boundary */
      :: true
      fi;
      atomic {
        if
#ifdef CLOSED_WITHOUT_ASKING
        :: result == OK -> closes[fd]++ /* Mutation: close(2) of what is another's by now. */
#endif
        :: result != OK -> close_fd(fd, OWNED, me)
        :: else
        fi
      }
    :: else
    fi;
    fd++
  od;
  atomic { fd = NONE; result = OK; released++ }
  wake(COORDINATOR)
}

/* A loop: it takes, moves, closes, sleeps, and may die before each of these. */
proctype Loop(byte me) {
  byte fd = NONE;
  byte place;
  mtype result = OK;
#ifdef CLOSED_BESIDE_TAIL
  bool isClosed;
#endif
  do
  :: me == 0 -> break /* it dies; the other one ends when it is told to */
  :: PUBLISHED(me) ->
    atomic {
      pop(me);
      if
      :: fd == STOP -> break
      :: else -> change(fd, WAITING, me, OWNED, me)
      fi
    }
    /* What its hooks do, or did, when it dies. */
    if
    :: atomic { close_fd(fd, OWNED, me) }
    :: true /* it keeps it */
    :: send(fd, me, 1 - me);
      if
      :: result == OK -> wake(1 - me)
      :: else
      fi
    fi;
    atomic { fd = NONE; result = OK }
  :: !PUBLISHED(me) -> sleep(me)
  od;
  release(me)
}

/* The coordinator: it accepts, hands out, takes back, tells the loops to end, and ends itself. */
proctype Coordinator() {
  byte fd = NONE;
  byte place;
  mtype result = OK;
  byte to;
  byte tried;
  byte next;
  byte told;
#ifdef CLOSED_BESIDE_TAIL
  bool isClosed;
#endif
  do
  :: next < FDS ->
    atomic {
      fd = next;
      next++;
      change(fd, FREE, NOBODY, OWNED, COORDINATOR)
    }
    goto give
  :: next == FDS && PUBLISHED(COORDINATOR) ->
    atomic {
      pop(COORDINATOR);
      change(fd, WAITING, COORDINATOR, OWNED, COORDINATOR)
    }
give:
    atomic { to = fd % LOOPS; tried = 0 }
    do
    :: tried == LOOPS -> atomic { close_fd(fd, OWNED, COORDINATOR) }; break
    :: tried < LOOPS ->
      send(fd, COORDINATOR, to);
      if
      :: result == OK -> wake(to); break
      :: else -> atomic { to = 1 - to; tried++ }
      fi
    od;
    atomic { fd = NONE; result = OK; to = 0; tried = 0 }
  :: next == FDS && told < LOOPS && (inbox[told].used < CAPACITY || inbox[told].closed) ->
    LOOK(told)
    atomic { claim(told) }
    if
    :: result == OK -> publish(told, STOP); wake(told)
    :: else
    fi;
    atomic { told = told + (result == FULL -> 0 : 1); result = OK }
  :: told == LOOPS && released == LOOPS && !PUBLISHED(COORDINATOR) -> break
  :: told == LOOPS && released < LOOPS && !PUBLISHED(COORDINATOR) ->
    inbox[COORDINATOR].sleeping = true;
    if
    :: PUBLISHED(COORDINATOR) || released == LOOPS -> inbox[COORDINATOR].sleeping = false
    :: else ->
      atomic {
        inbox[COORDINATOR].awake;
        inbox[COORDINATOR].sleeping = false;
        inbox[COORDINATOR].awake = false
      }
    fi
  od;
  atomic {
    fd = 0;
    do
    :: fd == FDS -> break
    :: else -> assert(state[fd] == CLOSED && closes[fd] == 1); fd++
    od
  }
}

init {
  byte at;
  byte slot;
  atomic {
    do
    :: at == INBOXES -> break
    :: else ->
      slot = 0;
      do
      :: slot == CAPACITY -> break
      :: else -> inbox[at].ring[slot] = NONE; slot++
      od;
      at++
    od;
    at = 0;
    do
    :: at == FDS -> break
    :: else -> state[at] = FREE; owner[at] = NOBODY; at++
    od;
    run Loop(0);
    run Loop(1);
    run Coordinator()
  }
}
