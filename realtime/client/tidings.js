// @ts-check
// Events of a Tidings hub, over a WebSocket or, where that does not get through, server-sent
// events. A module without dependencies, for browsers and Node 20 or later.

/**
 * An event as the server sends it.
 * @template [T=any]
 * @typedef {object} LiveEvent
 * @property {string} id with source, the same for each copy of an event
 * @property {string} source
 * @property {string} type such as "document.processed"
 * @property {string} [time] when it happened, RFC 3339
 * @property {string} [subject]
 * @property {T} data
 */

/**
 * What a group's member is told. Each is optional.
 * @typedef {object} Listener
 * @property {(event: LiveEvent, group: string) => void} [event]
 * @property {(group: string) => void} [joined] from here on nothing is missed; called again
 *   after each reconnection
 * @property {(group: string) => void} [reset] events may have been missed: fetch the state anew
 * @property {(error: LiveError) => void} [error] the group can't be joined
 */

/**
 * @typedef {object} LiveError
 * @property {string} code "forbidden", "bad_group", "too_many_groups", "unauthorized", ...
 * @property {string} message
 * @property {string} [group]
 */

/** @typedef {"connecting" | "open" | "waiting" | "closed"} State */

/**
 * @typedef {object} Options
 * @property {() => string | Promise<string>} [token] returns the token for a connection, asked
 *   anew for each; without it, cookies say who the user is
 * @property {"auto" | "websocket" | "sse"} [transport] "auto" begins with a WebSocket
 * @property {number} [minDelay] ms before the first reconnection, doubled each time; 500
 * @property {number} [maxDelay] ms; 30000
 * @property {(state: State, via: "websocket" | "sse" | "") => void} [onState]
 * @property {(error: LiveError) => void} [onError] errors that belong to no group
 */

/** @typedef {{ listeners: Set<Listener>, last: string, joined: boolean, error: LiveError | undefined }} Group */

const CLOSE_UNAUTHORIZED = 4401;
const CLOSE_BAD_MESSAGE = 4400;
const CLOSE_EXPIRED = 4419;
const CLOSE_TOO_LARGE = 1009; // a join, of a group whose name can't be one
const REMEMBERED = 512; // events, to tell copies after a reconnection

/**
 * Connects to a hub. The connection is made with the first join, and made anew, with its
 * groups, whenever it is lost.
 * @param {string} url of the hub, such as "/live/"
 * @param {Options} [options]
 */
export function connect(url, options = {}) {
  return new Live(url, options);
}

/** A connection to a hub; made by connect(). */
export class Live {
  /** @param {string} url @param {Options} options */
  constructor(url, options) {
    this._url = new URL(url, typeof location === "undefined" ? undefined : location.href);
    this._options = options;
    /** @type {Map<string, Group>} */ this._groups = new Map();
    /** @type {Set<string>} */ this._seen = new Set();
    /** @type {WebSocket | undefined} */ this._socket = undefined;
    /** @type {AbortController | undefined} */ this._stream = undefined;
    this._run = 0; // of the connection that counts; what belongs to another is ignored
    this._failures = 0; // attempts, since something was received
    this._received = false; // something, on the connection that counts
    this._expired = false; // the token was, with no connection since
    /** @type {any} */ this._timer = undefined;
    /** @type {State} */ this.state = "waiting";
    this._via = /** @type {"websocket" | "sse" | ""} */ ("");
  }

  /**
   * Joins a group. Several listeners may be in one group.
   * @param {string} name
   * @param {Listener | ((event: LiveEvent, group: string) => void)} listener
   * @returns {() => void} leaves it
   */
  join(name, listener) {
    const own = typeof listener === "function" ? { event: listener } : { ...listener };
    let group = this._groups.get(name);
    if (!group) {
      group = { listeners: new Set(), last: "", joined: false, error: undefined };
      this._groups.set(name, group);
    }
    const isNew = group.listeners.size === 0;
    group.listeners.add(own);
    if (isNew) this._changed({ join: name });
    else {
      const { joined, error } = group;
      if (joined) queueMicrotask(() => own.joined?.(name));
      if (error) queueMicrotask(() => own.error?.(error));
    }
    return () => {
      const g = this._groups.get(name);
      if (!g || !g.listeners.delete(own) || g.listeners.size > 0) return;
      this._groups.delete(name);
      this._changed({ leave: name });
    };
  }

  /** Ends the connection for good. */
  close() {
    this._groups.clear();
    this._drop();
    this._say("closed", "");
  }

  /** @param {{ join?: string, leave?: string }} change */
  _changed(change) {
    if (this.state === "closed") return;
    if (this._socket && this.state === "open") {
      this._socket.send(JSON.stringify(change));
      return;
    }
    if (this._socket || (this.state === "waiting" && this._timer)) return; // joins all when it is open
    // A stream has its groups in its address: a new one, once for all changes of this turn.
    this._drop();
    this._timer = setTimeout(() => this._open(), 0);
  }

  _drop() {
    this._run++;
    clearTimeout(this._timer);
    this._timer = undefined;
    const socket = this._socket;
    this._socket = undefined;
    this._stream?.abort();
    this._stream = undefined;
    socket?.close(1000);
  }

  /** @param {State} state @param {"websocket" | "sse" | ""} via */
  _say(state, via) {
    if (this.state === state && this._via === via) return;
    this.state = state;
    this._via = via;
    this._options.onState?.(state, via);
  }

  async _open() {
    this._timer = undefined;
    if (this._groups.size === 0) {
      this._say("waiting", "");
      return;
    }
    const run = ++this._run;
    this._received = false;
    const { token, transport = "auto" } = this._options;
    // Where WebSockets don't get through, every other attempt is a stream, which stays.
    const stream = transport === "sse" || (transport === "auto" &&
      (typeof WebSocket === "undefined" || this._failures % 2 === 1));
    this._say("connecting", stream ? "sse" : "websocket");
    try {
      const value = token ? await token() : "";
      if (run !== this._run) return;
      if (stream) await this._openStream(run, value);
      else this._openSocket(run, value);
    } catch (error) {
      if (run === this._run) this._lost(0, String(error));
    }
  }

  /** @param {number} run @param {string} token */
  _openSocket(run, token) {
    const url = new URL(this._url);
    url.protocol = url.protocol.replace("http", "ws");
    const protocols = ["tidings.v1"];
    if (token) protocols.push("bearer." + base64url(token));
    const socket = new WebSocket(url, protocols);
    this._socket = socket;
    socket.onopen = () => {
      if (run !== this._run) return;
      this._say("open", "websocket");
      for (const [join, group] of this._groups) {
        socket.send(JSON.stringify(group.last ? { join, after: group.last } : { join }));
      }
    };
    socket.onmessage = ({ data }) => {
      if (run === this._run) this._receive(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => {
      if (run !== this._run) return;
      this._socket = undefined;
      this._lost(code, reason);
    };
  }

  /** @param {number} run @param {string} token */
  async _openStream(run, token) {
    const url = new URL(this._url);
    let last = "";
    for (const [name, group] of this._groups) {
      url.searchParams.append("group", name);
      if (older(group.last, last)) last = group.last;
    }
    /** @type {Record<string, string>} */
    const headers = { Accept: "text/event-stream" };
    if (token) headers.Authorization = "Bearer " + token;
    if (last) headers["Last-Event-ID"] = last;
    this._stream = new AbortController();
    const response = await fetch(url, {
      headers, signal: this._stream.signal, credentials: "include", cache: "no-store",
    });
    if (run !== this._run) return;
    if (!response.ok || !response.body) {
      const body = await response.json().catch(() => ({}));
      if (run === this._run) this._refused(response.status, body);
      return;
    }
    this._say("open", "sse");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    let code = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (run !== this._run) return;
      if (done) break;
      text += value;
      const blocks = text.split("\n\n");
      text = /** @type {string} */ (blocks.pop());
      for (const block of blocks) {
        const line = block.split("\n").find((l) => l.startsWith("data: "));
        if (!line) continue; // a comment, or the retry time
        const message = JSON.parse(line.slice(6));
        if (message.type === "close") code = message.code;
        this._receive(message);
        if (run !== this._run) return; // a listener has left or joined
      }
    }
    this._lost(code, "the stream has ended");
  }

  /** @param {number} status @param {any} body */
  _refused(status, body) {
    const error = { code: String(body.code ?? status), message: String(body.message ?? "HTTP status " + status) };
    if (status === 401) this._lost(error.code === "expired" ? CLOSE_EXPIRED : CLOSE_UNAUTHORIZED, error.message);
    else if (status === 400 || status === 403) {
      // Nothing in it that trying again would change.
      for (const [group, g] of this._groups) this._failed(g, { ...error, group });
      this._drop();
      this._say("waiting", "");
    } else this._lost(0, error.message);
  }

  /** @param {Group} group @param {LiveError} error */
  _failed(group, error) {
    group.joined = false;
    group.error = error;
    for (const l of [...group.listeners]) l.error?.(error);
  }

  /** @param {any} m */
  _receive(m) {
    // A connection that is cut at once, each time, is no success, so only what comes counts.
    if (m.type !== "close") {
      this._received = true;
      this._failures = 0;
      this._expired = false;
    }
    const group = this._groups.get(m.group);
    if (m.id) {
      // A node's positions count over all groups: this one is good for each that is joined.
      for (const g of this._groups.values()) if (g === group || g.joined) g.last = m.id;
    }
    if (!group) return;
    switch (m.type) {
      case "joined":
        group.joined = true;
        group.error = undefined;
        for (const l of [...group.listeners]) l.joined?.(m.group);
        break;
      case "reset":
        for (const l of [...group.listeners]) l.reset?.(m.group);
        break;
      case "error":
        this._failed(group, { code: m.code, message: m.message, group: m.group });
        break;
      case "event": {
        const key = JSON.stringify([m.group, m.event.source, m.event.id]);
        if (this._seen.has(key)) return;
        this._seen.add(key);
        if (this._seen.size > REMEMBERED) this._seen.delete(this._seen.values().next().value ?? "");
        for (const l of [...group.listeners]) l.event?.(m.event, m.group);
      }
    }
  }

  /** @param {number} code @param {string} reason */
  _lost(code, reason) {
    this._drop();
    for (const group of this._groups.values()) group.joined = false;
    const expired = code === CLOSE_EXPIRED && this._options.token && !this._expired;
    const bad = code === CLOSE_BAD_MESSAGE || code === CLOSE_TOO_LARGE; // and would be again
    if (code === CLOSE_UNAUTHORIZED || bad || (code === CLOSE_EXPIRED && !expired)) {
      this.close();
      this._options.onError?.({ code: bad ? "bad_message" : "unauthorized", message: reason });
      return;
    }
    this._say("waiting", "");
    const { minDelay = 500, maxDelay = 30000 } = this._options;
    let delay = Math.min(maxDelay, minDelay * 2 ** Math.min(this._failures, 16));
    delay *= 0.5 + Math.random() / 2; // so that a restarted server is not met by all at once
    if (expired) {
      this._expired = true;
      delay = 0; // with a new token
    } else if (!this._received) this._failures++;
    this._timer = setTimeout(() => this._open(), delay);
  }
}

/**
 * Whether a position is to be resumed from rather than another: the earlier one of a node's.
 * @param {string} a @param {string} b
 */
function older(a, b) {
  if (!a || !b) return a !== "";
  const [nodeA, seqA] = a.split(".");
  const [nodeB, seqB] = b.split(".");
  return nodeA === nodeB && Number(seqA) < Number(seqB);
}

/** @param {string} text */
function base64url(text) {
  const bytes = new TextEncoder().encode(text);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
