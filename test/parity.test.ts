// PARITY.md against what it speaks of: libevent's functions, the package's exports, the tests. Its
// tables are data for people, so they are checked as they stand and not generated.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const project = fileURLToPath(new URL('../../', import.meta.url));

/** The public functions of libevent 2.2's headers. */
const functions: Record<string, string> = {
  'event2/event.h': `
    event_enable_debug_mode event_debug_unassign event_base_new event_reinit event_base_dispatch
    event_base_get_method event_base_get_signal_method event_get_supported_methods
    event_gettime_monotonic event_base_get_num_events event_base_get_max_events event_config_new
    event_config_free event_config_avoid_method event_base_get_features
    event_config_require_features event_config_set_flag event_config_set_num_cpus_hint
    event_config_set_max_dispatch_interval event_base_new_with_config event_base_free
    event_base_free_nofinalize event_set_log_callback event_set_fatal_callback
    event_enable_debug_logging event_base_set event_base_loop event_base_loopexit
    event_base_loopbreak event_base_loopcontinue event_base_got_exit event_base_got_break
    event_self_cbarg event_new event_assign event_free event_finalize event_free_finalize
    event_base_once event_add event_remove_timer event_del event_del_noblock event_del_block
    event_active event_pending event_base_get_running_event event_initialized event_get_fd
    event_get_base event_get_events event_get_callback event_get_callback_arg event_get_priority
    event_get_assignment event_get_struct_event_size event_get_version event_get_version_number
    event_base_priority_init event_base_get_npriorities event_priority_set
    event_base_init_common_timeout event_set_mem_functions event_base_dump_events
    event_base_active_by_fd event_base_active_by_signal event_base_foreach_event
    event_base_gettimeofday_cached event_base_update_cache_time libevent_global_shutdown`,
  'event2/bufferevent.h': `
    bufferevent_socket_new bufferevent_socket_connect bufferevent_socket_connect_hostname
    bufferevent_socket_connect_hostname_hints bufferevent_socket_get_dns_error
    bufferevent_base_set bufferevent_get_base bufferevent_priority_set bufferevent_get_priority
    bufferevent_free bufferevent_setcb bufferevent_getcb bufferevent_setfd bufferevent_replacefd
    bufferevent_getfd bufferevent_get_underlying bufferevent_write bufferevent_write_buffer
    bufferevent_read bufferevent_read_buffer bufferevent_get_input bufferevent_get_output
    bufferevent_enable bufferevent_disable bufferevent_get_enabled bufferevent_set_timeouts
    bufferevent_setwatermark bufferevent_getwatermark bufferevent_lock bufferevent_unlock
    bufferevent_incref bufferevent_decref bufferevent_flush bufferevent_trigger
    bufferevent_trigger_event bufferevent_filter_new bufferevent_pair_new
    bufferevent_pair_get_partner ev_token_bucket_cfg_new ev_token_bucket_cfg_free
    bufferevent_set_rate_limit bufferevent_rate_limit_group_new
    bufferevent_rate_limit_group_set_cfg bufferevent_rate_limit_group_set_min_share
    bufferevent_rate_limit_group_free bufferevent_add_to_rate_limit_group
    bufferevent_remove_from_rate_limit_group bufferevent_set_max_single_read
    bufferevent_set_max_single_write bufferevent_get_max_single_read
    bufferevent_get_max_single_write bufferevent_get_read_limit bufferevent_get_write_limit
    bufferevent_get_max_to_read bufferevent_get_max_to_write bufferevent_get_token_bucket_cfg
    bufferevent_rate_limit_group_get_read_limit bufferevent_rate_limit_group_get_write_limit
    bufferevent_decrement_read_limit bufferevent_decrement_write_limit
    bufferevent_rate_limit_group_decrement_read bufferevent_rate_limit_group_decrement_write
    bufferevent_rate_limit_group_get_totals bufferevent_rate_limit_group_reset_totals`,
  'event2/watch.h': `
    evwatch_prepare_new evwatch_check_new evwatch_base evwatch_free evwatch_prepare_get_timeout`,
  'event2/http.h': `
    evhttp_new evhttp_bind_socket evhttp_bind_socket_with_handle evhttp_accept_socket
    evhttp_accept_socket_with_handle evhttp_bind_listener evhttp_bound_socket_get_listener
    evhttp_bound_set_bevcb evhttp_foreach_bound_socket evhttp_del_accept_socket
    evhttp_bound_socket_get_fd evhttp_free evhttp_set_max_headers_size
    evhttp_set_max_body_size evhttp_set_max_connections evhttp_get_connection_count
    evhttp_set_default_content_type evhttp_set_allowed_methods evhttp_set_ext_method_cmp
    evhttp_set_cb evhttp_del_cb evhttp_set_gencb evhttp_set_bevcb evhttp_set_newreqcb
    evhttp_set_errorcb evhttp_add_virtual_host evhttp_remove_virtual_host
    evhttp_add_server_alias evhttp_remove_server_alias evhttp_set_timeout
    evhttp_set_timeout_tv evhttp_set_read_timeout_tv evhttp_set_write_timeout_tv
    evhttp_set_flags evhttp_send_error evhttp_send_reply evhttp_send_reply_start
    evhttp_send_reply_chunk evhttp_send_reply_chunk_with_cb evhttp_send_reply_end
    evhttp_connection_base_bufferevent_new evhttp_connection_base_bufferevent_unix_new
    evhttp_connection_base_bufferevent_reuse_new evhttp_connection_get_bufferevent
    evhttp_connection_get_server evhttp_request_new evhttp_request_set_chunked_cb
    evhttp_request_set_header_cb evhttp_request_set_error_cb evhttp_request_set_on_complete_cb
    evhttp_request_free evhttp_connection_base_new evhttp_connection_set_family
    evhttp_connection_set_flags evhttp_request_own evhttp_request_is_owned
    evhttp_connection_set_ext_method_cmp evhttp_request_get_connection
    evhttp_connection_get_base evhttp_connection_set_max_headers_size
    evhttp_connection_set_max_body_size evhttp_connection_free
    evhttp_connection_free_on_completion evhttp_connection_set_local_address
    evhttp_connection_set_local_port evhttp_connection_set_timeout
    evhttp_connection_set_timeout_tv evhttp_connection_set_connect_timeout_tv
    evhttp_connection_set_read_timeout_tv evhttp_connection_set_write_timeout_tv
    evhttp_connection_set_initial_retry_tv evhttp_connection_set_retries
    evhttp_connection_set_closecb evhttp_connection_get_peer evhttp_connection_get_addr
    evhttp_make_request evhttp_cancel_request evhttp_request_get_uri
    evhttp_request_get_evhttp_uri evhttp_request_get_command evhttp_request_get_response_code
    evhttp_request_get_response_code_line evhttp_request_get_input_headers
    evhttp_request_get_output_headers evhttp_request_get_input_buffer
    evhttp_request_get_output_buffer evhttp_request_get_host evhttp_find_header
    evhttp_remove_header evhttp_add_header evhttp_clear_headers evhttp_encode_uri
    evhttp_uriencode evhttp_decode_uri evhttp_uridecode evhttp_parse_query
    evhttp_parse_query_str evhttp_parse_query_str_flags evhttp_htmlescape evhttp_uri_new
    evhttp_uri_set_flags evhttp_uri_get_scheme evhttp_uri_get_userinfo evhttp_uri_get_host
    evhttp_uri_get_unixsocket evhttp_uri_get_port evhttp_uri_get_path evhttp_uri_get_query
    evhttp_uri_get_fragment evhttp_uri_set_scheme evhttp_uri_set_userinfo evhttp_uri_set_host
    evhttp_uri_set_unixsocket evhttp_uri_set_port evhttp_uri_set_path evhttp_uri_set_query
    evhttp_uri_set_fragment evhttp_uri_parse_with_flags evhttp_uri_parse evhttp_uri_free
    evhttp_uri_join`,
  'event2/ws.h': `
    evws_new_session evws_send_text evws_send_binary evws_close evws_connection_set_closecb
    evws_connection_free evws_connection_get_bufferevent`,
  'event2/thread.h': `
    evthread_set_lock_callbacks evthread_set_condition_callbacks evthread_set_id_callback
    evthread_use_windows_threads evthread_use_pthreads evthread_use_pthreads_with_flags
    evthread_enable_lock_debugging evthread_enable_lock_debuging evthread_make_base_notifiable`,
  'event2/util.h': `
    evutil_date_rfc1123 evutil_monotonic_timer_new evutil_monotonic_timer_free
    evutil_configure_monotonic_time evutil_gettime_monotonic evutil_socketpair
    evutil_make_socket_nonblocking evutil_make_listen_socket_reuseable
    evutil_make_listen_socket_reuseable_port evutil_make_listen_socket_ipv6only
    evutil_make_listen_socket_not_ipv6only evutil_make_socket_closeonexec evutil_closesocket
    evutil_make_tcp_listen_socket_deferred evutil_set_tcp_keepalive evutil_socket_geterror
    evutil_socket_error_to_string evutil_strtoll evutil_gettimeofday evutil_snprintf
    evutil_vsnprintf evutil_inet_ntop evutil_inet_pton_scope evutil_inet_pton
    evutil_parse_sockaddr_port evutil_sockaddr_cmp evutil_ascii_strcasecmp
    evutil_ascii_strncasecmp evutil_getaddrinfo evutil_freeaddrinfo evutil_gai_strerror
    evutil_secure_rng_get_bytes evutil_secure_rng_init evutil_secure_rng_set_urandom_device_file
    evutil_secure_rng_add_bytes`,
  'event2/buffer.h': `
    evbuffer_new evbuffer_free evbuffer_set_max_read evbuffer_get_max_read
    evbuffer_enable_locking evbuffer_lock evbuffer_unlock evbuffer_set_flags
    evbuffer_clear_flags evbuffer_get_length evbuffer_get_contiguous_space evbuffer_expand
    evbuffer_reserve_space evbuffer_commit_space evbuffer_add evbuffer_remove evbuffer_copyout
    evbuffer_copyout_from evbuffer_remove_buffer evbuffer_readln evbuffer_add_buffer
    evbuffer_add_buffer_reference evbuffer_add_reference evbuffer_add_reference_with_offset
    evbuffer_add_file evbuffer_file_segment_new evbuffer_file_segment_free
    evbuffer_file_segment_add_cleanup_cb evbuffer_add_file_segment evbuffer_add_printf
    evbuffer_add_vprintf evbuffer_drain evbuffer_write evbuffer_write_atmost evbuffer_read
    evbuffer_search evbuffer_search_range evbuffer_ptr_set evbuffer_search_eol evbuffer_peek
    evbuffer_add_cb evbuffer_remove_cb_entry evbuffer_remove_cb evbuffer_cb_set_flags
    evbuffer_cb_clear_flags evbuffer_pullup evbuffer_prepend evbuffer_prepend_buffer
    evbuffer_freeze evbuffer_unfreeze evbuffer_defer_callbacks evbuffer_add_iovec`,
  'event2/bufferevent_ssl.h': `
    bufferevent_ssl_get_flags bufferevent_ssl_set_flags bufferevent_ssl_clear_flags
    bufferevent_openssl_filter_new bufferevent_openssl_socket_new
    bufferevent_openssl_get_allow_dirty_shutdown bufferevent_openssl_set_allow_dirty_shutdown
    bufferevent_openssl_get_ssl bufferevent_ssl_renegotiate bufferevent_get_openssl_error
    bufferevent_mbedtls_filter_new bufferevent_mbedtls_socket_new
    bufferevent_mbedtls_get_allow_dirty_shutdown bufferevent_mbedtls_set_allow_dirty_shutdown
    bufferevent_mbedtls_get_ssl bufferevent_mbedtls_renegotiate bufferevent_get_mbedtls_error
    bufferevent_mbedtls_dyncontext_new bufferevent_mbedtls_dyncontext_free`,
  'event2/listener.h': `
    evconnlistener_new evconnlistener_new_bind evconnlistener_free evconnlistener_enable
    evconnlistener_disable evconnlistener_get_base evconnlistener_get_fd evconnlistener_set_cb
    evconnlistener_set_error_cb`,
};

/** Rows for these are welcome and not required. */
const macros = /^(evtimer|evsignal|evuser)_|^EV/;

const reasons = ['allocator', 'locking', 'printf', 'fork', 'duplicate of libc'];
const header = '| libevent | multiloop | test |';

// ── what there is ───────────────────────────────────────────────────────────────────────────────

type Exists = (symbol: string) => boolean;
/** The titles that a test file registers, or undefined when there is no such file. */
type Titles = (file: string) => string[] | undefined;

/** Whether `index` exports `name`, or `name.member`: of an instance, a class, a type or a value. */
function exportsOf(index: string): Exists {
  const { config } = ts.readConfigFile(join(project, 'tsconfig.json'), ts.sys.readFile);
  const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, project);
  const program = ts.createProgram([index], { ...options, incremental: false, noEmit: true });
  const checker = program.getTypeChecker();
  const file = program.getSourceFile(index);
  const module = file && checker.getSymbolAtLocation(file);
  assert.ok(module, `${index} exports nothing`);
  const exported = new Map(checker.getExportsOfModule(module).map((one) => [one.name, one]));
  return (symbol) => {
    const [name, member, ...more] = symbol.split('.');
    const alias = exported.get(name);
    if (alias === undefined || more.length > 0) return false;
    if (member === undefined) return true;
    const found = alias.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(alias) : alias;
    const types: ts.Type[] = [];
    if (found.flags & ts.SymbolFlags.Type) types.push(checker.getDeclaredTypeOfSymbol(found));
    if (found.flags & ts.SymbolFlags.Value) types.push(checker.getTypeOfSymbol(found));
    return !member.startsWith('_') && types.some((type) => type.getProperty(member) !== undefined);
  };
}

/** First arguments of statements like `test('title', body)`; `${…}` stands in them as it is. */
function titlesIn(path: string): string[] | undefined {
  if (!existsSync(path)) return undefined;
  const text = readFileSync(path, 'utf8');
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest);
  const titles: string[] = [];
  const visit = (node: ts.Node) => {
    ts.forEachChild(node, visit);
    if (!ts.isExpressionStatement(node) || !ts.isCallExpression(node.expression)) return;
    const { expression: callee, arguments: given } = node.expression;
    if (!ts.isIdentifier(callee) || given.length < 2) return;
    const [title] = given;
    if (ts.isStringLiteralLike(title)) titles.push(title.text);
    else if (ts.isTemplateExpression(title)) titles.push(title.getText(source));
  };
  visit(source);
  return titles;
}

// ── the checker ─────────────────────────────────────────────────────────────────────────────────

/** The cells of every row of a table with our header, and the row's line. */
function* rowsOf(markdown: string): Generator<{ line: number; cells: string[] }> {
  let inside = false;
  for (const [index, text] of markdown.split('\n').entries()) {
    if (!text.startsWith('|')) inside = false;
    else if (text === header) inside = true;
    else if (inside && !text.startsWith('| ---')) {
      const cells = text.split('|').slice(1, -1);
      yield { line: index + 1, cells: cells.map((cell) => cell.trim()) };
    }
  }
}

/** What is wrong with the second and the third cell of a row. */
function* complaintsOf(here: string, shown: string, exists: Exists, titles: Titles) {
  const [bare, note] = here.split(/ \(([^()]*)\)$/);
  if (bare.startsWith('none: ')) {
    const reason = bare.slice('none: '.length);
    if (!reasons.includes(reason)) yield `'${reason}' is no reason`;
    if (reason === 'duplicate of libc' && note === undefined) yield 'which duplicate?';
    if (shown !== '–') yield 'nothing is here, so nothing is shown: –';
    return;
  }
  // A note may follow any of several symbols.
  for (const part of here.replace(/ \([^()]*\)(?=, |$)/g, '').split(', ')) {
    const symbol = part.match(/^`([\w.]+)`$/)?.[1];
    if (symbol === undefined) yield `'${part}' is neither \`a.symbol\` nor none: a reason`;
    else if (!exists(symbol)) yield `${symbol} is not exported`;
  }
  for (const test of shown.split('<br>')) {
    const [, file, title] = test.match(/^([\w/.]+): (.+)$/) ?? [];
    if (file === undefined) yield `'${test}' is not 'file: title'`;
    else if (file === 'pending') yield `no test shows it yet (${title})`;
    else {
      const known = titles(file);
      if (known === undefined) yield `there is no test/${file}.test.ts`;
      else if (!known.some((one) => one.includes(title))) yield `no test of ${file} is '${title}'`;
    }
  }
}

function check(markdown: string, names: string[], exists: Exists, titles: Titles): string[] {
  const complaints: string[] = [];
  const seen = new Map<string, number>();
  for (const { line, cells } of rowsOf(markdown)) {
    const complain = (what: string) => complaints.push(`${line} ${cells[0]}: ${what}`);
    if (cells.length !== 3) complain(`${cells.length} cells, not 3`);
    if (cells.includes('')) complain('an empty cell');
    const name = cells[0].match(/^`(\w+)`$/)?.[1] ?? cells[0];
    if (!names.includes(name) && !macros.test(name)) complain('libevent has no such function');
    if (seen.has(name)) complain(`it has a row already, at ${seen.get(name)}`);
    seen.set(name, line);
    if (cells.length !== 3 || cells.includes('')) continue;
    for (const what of complaintsOf(cells[1], cells[2], exists, titles)) complain(what);
  }
  for (const name of names) if (!seen.has(name)) complaints.push(`${name} has no row`);
  return complaints;
}

// ── the tests ───────────────────────────────────────────────────────────────────────────────────

const inIndex = exportsOf(join(project, 'src/index.ts'));
const inHttp = exportsOf(join(project, 'src/http.ts'));
const exists: Exists = (symbol) => inIndex(symbol) || inHttp(symbol);
const cache = new Map<string, string[] | undefined>();

function titlesOf(file: string): string[] | undefined {
  if (!cache.has(file)) cache.set(file, titlesIn(join(project, 'test', `${file}.test.ts`)));
  return cache.get(file);
}

const markdown = readFileSync(join(project, 'PARITY.md'), 'utf8');
const sections = markdown.split(/^(?=## )/m);
const wordsOf = (text: string) => text.trim().split(/\s+/);

for (const [file, names] of Object.entries(functions)) {
  test(`every function of ${file} has its row, its symbol and its test`, () => {
    const section = sections.findIndex((text) => text.startsWith(`## ${file}\n`));
    assert.ok(section >= 0, `no section ${file}`);
    // Lines before it, so that a complaint has the line of the whole page.
    const before = sections.slice(0, section).join('').replace(/[^\n]/g, '');
    assert.equal(check(before + sections[section], wordsOf(names), exists, titlesOf), []);
  });
}

test('no table stands outside the sections of the headers', () => {
  const headers = Object.keys(functions);
  for (const text of sections.filter(
    (one) => !headers.some((name) => one.startsWith(`## ${name}`)),
  ))
    assert.equal([...rowsOf(text)], []);
});

test('symbols are found where they are: exports, instances, classes, types, values', () => {
  const there = [
    'EventBase',
    'EventBase.loopExit', // a method
    'EventBase.gotExit', // a getter
    'EventBase.backends', // a static method
    'EventBase.signalMethod', // a static property
    'EventBaseOptions.avoid', // of an interface
    'EventCallback', // an alias of a type
    'Listener.pause', // inherited
    'SystemError.message', // inherited from Node's types
    'sys.socketPair', // of a constant
    'Ev.READ',
    'versionNumber',
  ];
  for (const symbol of there) assert.ok(exists(symbol), symbol);
  const missing = ['Base', 'native', 'EventBase.loopexit', 'EventBase._id', 'Ev.READ.x', 'sys.x'];
  for (const symbol of [...missing, 'EventBase.#run', 'EventBase.'])
    assert.not(exists(symbol), symbol);
});

test('the titles of a test file are those that it registers', () => {
  const titles = titlesOf('event/event_timer') ?? [];
  assert.ok(titles.includes('a timer fires once, with TIMEOUT, and never early'));
  assert.ok(titles.some((title) => title.includes('event gets READ and TIMEOUT of one pass')));
  assert.ok(titlesOf('event/listener')?.includes('deferAccept waits for the first bytes'));
  assert.is(titlesOf('event/none'), undefined);
});

test('every complaint is made, for the row that earns it', () => {
  const table = [
    '| libevent | other |',
    '| `skipped` | |',
    '',
    header,
    '| --- | --- | --- |',
    '| `good` | `Base.loop` (a note), `Base.now` | a: first title<br>a: second |',
    '| `spared` | none: duplicate of libc (`Date.now`) | – |',
    '| `evtimer_new` | `Base` | a: first |',
    '| `good` | `Base` | a: first |',
    '| `unknown` | `Base` | a: first |',
    '| plain | `Base` | a: first |',
    '| `two` | `Base` |',
    '| `hole` | | a: first |',
    '| `gone` | `Base.gone` | a: first |',
    '| `prose` | Base, `Base` | a: first |',
    '| `lazy` | none: laziness | – |',
    '| `libc` | none: duplicate of libc | – |',
    '| `lock` | none: locking (no locks) | a: first |',
    '| `later` | `Base` | pending: feature |',
    '| `file` | `Base` | b: first |',
    '| `title` | `Base` | a: third |',
    '| `form` | `Base` | a |',
  ].join('\n');
  const names =
    'good spared two hole gone prose lazy libc lock later file title form missing'.split(' ');
  const found = check(
    table,
    names,
    (symbol) => ['Base', 'Base.loop', 'Base.now'].includes(symbol),
    (file) => (file === 'a' ? ['the first title', 'a second'] : undefined),
  );
  assert.equal(found, [
    '9 `good`: it has a row already, at 6',
    '10 `unknown`: libevent has no such function',
    '11 plain: libevent has no such function',
    '12 `two`: 2 cells, not 3',
    '13 `hole`: an empty cell',
    '14 `gone`: Base.gone is not exported',
    "15 `prose`: 'Base' is neither `a.symbol` nor none: a reason",
    "16 `lazy`: 'laziness' is no reason",
    '17 `libc`: which duplicate?',
    '18 `lock`: nothing is here, so nothing is shown: –',
    '19 `later`: no test shows it yet (feature)',
    '20 `file`: there is no test/b.test.ts',
    "21 `title`: no test of a is 'third'",
    "22 `form`: 'a' is not 'file: title'",
    'missing has no row',
  ]);
});

test.run();
