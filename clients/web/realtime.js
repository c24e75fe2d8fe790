// The OpenAI Realtime GA protocol over a WebSocket, as far as this page needs it.
// Close codes: 1013 = full or still loading, 1008 = key or origin refused, 1012 = it restarts.
// A conversation that has begun goes on in a new session after 1012, 1013 and a connection that broke (1006):
// the page sees "trouble", then another session.created.
import { toBase64 } from "./audio.js";
import { History, newItemId } from "./history.js";

const PASSING = [1006, 1012, 1013];
const EXPLAIN = ["server_full", "session_expired"]; // errors that only say why the close frame follows
const PATIENCE_MS = 30_000;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2000;

export class Realtime extends EventTarget {
  constructor({ model, key, rate }) {
    super();
    this.url = new URL("v1/realtime", document.baseURI);
    this.url.protocol = this.url.protocol.replace("http", "ws");
    this.url.searchParams.set("model", model);
    this.protocols = key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"];
    this.history = new History(rate);
    this.begun = false; // a session has been there
    this.lostAt = null; // when the present one was lost
    this.connect();
  }

  connect() {
    const socket = new WebSocket(this.url, this.protocols);
    this.socket = socket;
    this.told = !this.begun; // nothing is sent to a session before it knows the conversation
    socket.onmessage = ({ data }) => this.onEvent(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.onClose(code, reason);
  }

  onEvent(event) {
    if (event.type === "error" && EXPLAIN.includes(event.error.code)) return;
    this.history.received(event);
    if (event.type === "session.created") {
      this.begun = true;
      this.lostAt = null;
    }
    this.dispatchEvent(new CustomEvent("event", { detail: event }));
    if (event.type === "session.created" && !this.told) {
      for (const [type, fields] of this.history.replay()) this.write(type, fields);
      this.told = true;
    }
  }

  onClose(code, reason) {
    if (this.ended) return;
    const now = performance.now();
    if (this.lostAt === null) {
      this.lostAt = now;
      this.pause = FIRST_PAUSE_MS;
    }
    if (!this.begun || !PASSING.includes(code) || now - this.lostAt > PATIENCE_MS) {
      this.dispatchEvent(new CustomEvent("closed", { detail: { code, reason } }));
      return;
    }
    this.dispatchEvent(new CustomEvent("trouble", { detail: { code, reason } }));
    this.pause = Math.min(this.pause * (1 + Math.random()), LONGEST_PAUSE_MS); // so that pages do not come together
    this.timer = setTimeout(() => this.connect(), this.pause);
  }

  get open() { return this.socket.readyState === WebSocket.OPEN; }

  // Settings are not part of the history: the page sends them at each session.created.
  configure(session) { this.write("session.update", { session }); }

  send(type, fields = {}) {
    if (type === "conversation.item.create") fields = { item: { id: newItemId(), ...fields.item } };
    for (const event of this.history.sent(type, fields)) if (this.told) this.write(...event);
  }

  // Sound of the microphone: Int16Array at the session's rate.
  append(pcm) {
    this.history.sound(pcm);
    if (this.told) this.write("input_audio_buffer.append", { audio: toBase64(pcm) });
  }

  // Seconds of sound that this session has been given.
  get heardSeconds() { return this.history.heardUntil / this.history.rate; }

  write(type, fields) {
    if (this.open) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  close() {
    this.ended = true;
    clearTimeout(this.timer);
    this.socket.close(1000);
  }
}
