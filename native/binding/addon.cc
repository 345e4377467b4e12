// The addon: one translation unit, since the headers of node-addon-api cost seconds in each. It
// may be loaded in any number of threads; all state is the environment's, and what is shared
// between them (inboxes, ledger) lives in the core.

#include <napi.h>

// In this order: the later files use what the earlier ones define.
// clang-format off
#include "env_state.cc"
#include "drive.cc"
#include "signal_hub.cc"
#include "base_binding.cc"
#include "sys_binding.cc"
#include "net_binding.cc"
#include "files_binding.cc"
#include "listener_binding.cc"
#include "datagram_binding.cc"
#include "inbox_binding.cc"
#include "numbers_binding.cc"
#include "tls_binding.cc"
#include "intake_binding.cc"
#include "topic_binding.cc"
// clang-format on

namespace multiloop {

namespace {

struct Export {
  const char* name;
  napi_callback function;
};

constexpr Export kExports[] = {
    {"baseNew", base_new},
    {"baseClose", base_close},
    {"baseRun", base_run},
    {"baseStop", base_stop},
    {"baseDrive", base_drive},
    {"baseSettle", base_settle},
    {"basePoll", base_poll},
    {"baseTimeout", base_timeout},
    {"baseExpire", base_expire},
    {"commonTimeout", common_timeout},
    {"baseNow", base_now},
    {"baseIdle", base_idle},
    {"baseUpdateTime", base_update_time},
    {"baseCheck", base_check},
    {"reportException", report_exception},
    {"eventNew", event_new},
    {"eventAdd", event_add},
    {"eventDel", event_call<&Base::remove>},
    {"eventRemoveTimer", event_call<&Base::remove_timer>},
    {"eventFree", event_call<&Base::destroy>},
    {"eventRearm", event_call<&Base::rearm>},
    {"eventBeginSignal", event_call<&Base::begin_signal>},
    {"eventRef", event_ref},
    {"eventAlone", event_alone},
    {"eventPending", event_pending},
    {"eventRemaining", event_remaining},
    {"fdForget", fd_forget},
    {"backends", backends},
    {"wakers", wakers},
    {"portable", portable},
    {"layout", layout},
    {"sysRead", sys_read},
    {"sysWrite", sys_write},
    {"sysShare", sys_share},
    {"sysReadSmall", sys_read_small},
    {"sysWriteSmall", sys_write_small},
    {"sysClose", sys_close},
    {"sysDup", sys_dup},
    {"sysPipe", open_two<sys::pipe>},
    {"sysSocketPair", open_two<sys::socket_pair>},
    {"sockSendv", sock_sendv},
    {"sockNonBlocking", sock_non_blocking},
    {"sockCloseOnExec", sock_close_on_exec},
    {"sockKeepAlive", sock_keep_alive},
    {"sockShutdown", sock_shutdown},
    {"sockError", sock_error},
    {"sockLocal", sock_name<sys::local_address>},
    {"sockPeer", sock_name<sys::peer_address>},
    {"sockListen", sock_listen},
    {"listenerAccept", listener_accept},
    {"listenerPeer", listener_peer},
    {"listenerAdopt", listener_adopt},
    {"listenerReserve", listener_reserve},
    {"listenerRefuse", listener_refuse},
    {"datagramOpen", datagram_open},
    {"datagramAdopt", datagram_adopt},
    {"datagramOption", datagram_option},
    {"datagramMembership", datagram_membership},
    {"datagramInterface", datagram_interface},
    {"datagramPack", datagram_pack},
    {"datagramName", datagram_name},
    {"datagramReceive", datagram_receive},
    {"datagramSend", datagram_send},
    {"isIp", is_ip},
    {"slabShare", slab_share},
    {"slabRecv", slab_recv},
    {"slabSend", slab_send},
    {"sockSendPart", sock_send_part},
    {"sockPeek", sock_peek},
    {"sysReadv", sys_vector<sys::readv>},
    {"sysWritev", sys_vector<sys::writev>},
    {"sysPread", sys_pread},
    {"sendFile", send_file},
    {"fileFolder", file_folder},
    {"fileOpen", file_open},
    {"fileClose", file_close},
    {"fileFollows", file_follows},
    {"sockConnect", sock_connect},
    {"sockType", sock_type},
    {"sockResetOnClose", sock_reset_on_close},
    {"inboxNew", inbox_new},
    {"inboxFree", inbox_free},
    {"inboxAttach", inbox_attach},
    {"inboxDetach", inbox_detach},
    {"inboxAbandon", inbox_abandon},
    {"inboxRef", inbox_ref},
    {"inboxPost", inbox_post},
    {"inboxTake", inbox_take},
    {"inboxHandoff", inbox_handoff},
    {"inboxWake", inbox_wake},
    {"inboxStats", inbox_stats},
    {"inboxAccepts", inbox_accepts},
    {"inboxShed", inbox_shed},
    {"quotaNew", quota_new},
    {"quotaFree", quota_free},
    {"topicsNew", topics_new},
    {"topicsFree", topics_free},
    {"topicsAppend", topics_append},
    {"topicsJoin", topics_join},
    {"topicsInterest", topics_interest},
    {"topicsRead", topics_read},
    {"topicsReplay", topics_replay},
    {"topicsNote", topics_note},
    {"topicsForget", topics_forget},
    {"topicsUnderWay", topics_under_way},
    {"topicsAdopt", topics_adopt},
    {"topicsSizes", topics_sizes},
    {"ledgerListen", ledger_listen},
    {"ledgerPass", ledger_pass},
    {"ledgerUnlisten", ledger_unlisten},
    {"ledgerReserve", ledger_reserve},
    {"ledgerRefuse", ledger_refuse},
    {"ledgerAccept", ledger_accept},
    {"inboxBoundaries", inbox_boundaries},
    {"ledgerCheckpoint", ledger_checkpoint},
    {"ledgerMove", ledger_move},
    {"ledgerOwner", ledger_owner},
    {"ledgerClose", ledger_close},
    {"ledgerPeer", ledger_peer},
    {"ledgerListener", ledger_listener},
    {"ledgerCount", ledger_count},
    {"ledgerList", ledger_list},
    {"inboxNumbers", inbox_numbers},
    {"inboxTimes", inbox_times},
    {"processors", processors},
    {"bindThread", bind_thread},
    {"tlsUnavailable", tls_unavailable_why},
#ifdef ML_HAVE_TLS
    {"tlsContextNew", tls_context_new},
    {"tlsContextExpired", tls_context_expired},
    {"tlsContextFree", tls_context_free},
    {"tlsContextLearn", tls_context_learn},
    {"tlsContextProblem", tls_context_problem},
    {"tlsContextCount", tls_context_count},
    {"tlsOpen", tls_open},
    {"tlsFree", tls_free},
    {"tlsUnfinished", tls_unfinished},
    {"tlsHandshake", tls_handshake},
    {"tlsAsked", tls_asked},
    {"tlsAnswer", tls_answer},
    {"tlsRead", tls_read},
    {"tlsWrite", tls_write},
    {"tlsShutdown", tls_shutdown},
    {"tlsError", tls_error},
    {"tlsFacts", tls_facts},
    {"tlsSession", tls_session},
    {"tlsUpdateKeys", tls_update_keys},
    {"tlsStep", tls_step},
    {"tlsSessionCount", tls_session_count},
#endif
};

Napi::Object init(Napi::Env env, Napi::Object exports) {
  uv_loop_t* loop = nullptr;
  ML_CHECK(napi_get_uv_event_loop(env, &loop) == napi_ok);
  // Freed by its own cleanup hook, after its libuv handles.
  auto* state = new EnvState(env, loop);
  for (const Export& entry : kExports) {
    napi_value function = nullptr;
    ML_CHECK(napi_create_function(env, entry.name, NAPI_AUTO_LENGTH, entry.function, state,
                                  &function) == napi_ok);
    exports.Set(entry.name, Napi::Value(env, function));
  }
  return exports;
}

}  // namespace

}  // namespace multiloop

static Napi::Object InitAddon(Napi::Env env, Napi::Object exports) {
  return multiloop::init(env, exports);
}

NODE_API_MODULE(multiloop, InitAddon)
