// The OpenAI Realtime GA protocol over a WebSocket, as far as this page needs it.
// Close codes: 1013 = full or still loading, 1008 = key or origin refused, 1012 = it restarts.
// A conversation that has begun goes on in a new session after 1012, 1013 and a connection that broke (1006):
// the page sees "trouble", then another session.created. A server that is frozen keeps its connection open: while an
// answer is awaited or somebody speaks, and no event comes, its health route tells whether anybody is there. The page sees
// "silent", then events, or "trouble".
import { toBase64 } from "./audio.js";
import { History, NOTHING_SPOKEN, newItemId } from "./history.js";

const PASSING = [1006, 1012, 1013];
const EXPLAIN = ["server_full", "session_expired"]; // errors that only say why the close frame follows
const PATIENCE_MS = 30_000;
const OPEN_MS = 5000; // for a new session to be there
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2000;
const LOOK_MS = 400; // without an event: then the health route is asked
const ANSWER_MS = 1000; // for its answer
const LEAVE_MS = 4000; // without either: the connection counts as broken
const LOUD = 2000; // a sample of which somebody may be speaking

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
    this.health = new URL("health/live", document.baseURI);
    this.awaited = false; // an answer
    this.loud = false; // somebody may have spoken since the server was alive
    this.aliveAt = performance.now(); // the server has read what was sent until then
    this.silent = false;
    this.looks = setInterval(() => this.look(), LOOK_MS);
    this.connect();
  }

  connect() {
    const socket = new WebSocket(this.url, this.protocols);
    this.socket = socket;
    this.told = !this.begun; // nothing is sent to a session before it knows the conversation
    socket.onmessage = ({ data }) => this.onEvent(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.onClose(code, reason);
    this.opening = setTimeout(() => this.leave(), OPEN_MS); // what is frozen takes connections, too
  }

  onEvent(event) {
    const now = performance.now();
    const unheard = (now - (this.awaited || this.loud ? this.aliveAt : this.lostAt ?? now)) / 1000;
    this.alive(now);
    if (event.type === "error" && EXPLAIN.includes(event.error.code)) return;
    if (["input_audio_buffer.speech_stopped", "response.created"].includes(event.type)) this.awaited = true;
    if (event.type === "response.done" || event.error?.code === NOTHING_SPOKEN) this.awaited = false;
    this.history.received(event);
    if (event.type === "session.created") {
      clearTimeout(this.opening);
      this.begun = true;
      this.lostAt = null;
    }
    this.dispatchEvent(new CustomEvent("event", { detail: event }));
    if (event.type === "session.created" && !this.told) {
      for (const [type, fields] of this.history.replay(unheard)) this.write(type, fields);
      this.told = true;
    }
  }

  onClose(code, reason) {
    clearTimeout(this.opening);
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

  // Whether anybody is there, if that is in doubt.
  async look() {
    const asked = performance.now();
    const inDoubt = (this.awaited || this.loud) && asked - this.aliveAt > LOOK_MS;
    if (!inDoubt || !this.open || !this.told || this.looking) return;
    this.looking = true;
    const signal = AbortSignal.timeout(ANSWER_MS);
    const there = await fetch(this.health, { cache: "no-store", signal }).then(() => true, () => false);
    this.looking = false;
    if (there) {
      this.alive(asked);
    } else if (this.aliveAt < asked && !this.ended) {
      this.silence(true);
      if (performance.now() - this.aliveAt > LEAVE_MS) this.leave();
    }
  }

  alive(at) {
    this.aliveAt = at;
    this.loud = false;
    this.silence(false);
  }

  silence(silent) {
    if (this.silent !== silent) this.dispatchEvent(new CustomEvent("silent", { detail: silent }));
    this.silent = silent;
  }

  leave() {
    const { socket } = this;
    socket.onmessage = socket.onclose = null;
    socket.close();
    this.onClose(1006, "");
  }

  get open() { return this.socket.readyState === WebSocket.OPEN; }

  // Whether there is an answer, or is to be one, that is not over.
  get isAsked() { return this.history.asked !== null; }

  // Settings are not part of the history: the page sends them at each session.created.
  configure(session) { this.write("session.update", { session }); }

  send(type, fields = {}) {
    if (type === "conversation.item.create") fields = { item: { id: newItemId(), ...fields.item } };
    for (const event of this.history.sent(type, fields)) if (this.told) this.write(...event);
  }

  // Sound of the microphone: Int16Array at the session's rate.
  append(pcm) {
    if (pcm.some((sample) => sample > LOUD)) this.loud = true;
    this.history.sound(pcm);
    if (this.told) this.write("input_audio_buffer.append", { audio: toBase64(pcm) });
  }

  // Seconds of sound that this session has been given.
  get heardSeconds() { return this.history.heardUntil / this.history.rate; }

  write(type, fields) {
    if (type === "response.create") this.awaited = true;
    if (this.open) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  close() {
    this.ended = true;
    clearTimeout(this.timer);
    clearTimeout(this.opening);
    clearInterval(this.looks);
    this.socket.close(1000);
  }
}
