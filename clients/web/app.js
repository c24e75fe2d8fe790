// The page: wires microphone, loudspeaker, protocol and captions to the controls.
import { Microphone, Speaker, fromBase64, openContext } from "./audio.js";
import { Captions } from "./captions.js";
import { hintsOf } from "./hints.js";
import { Latencies } from "./latency.js";
import { Realtime } from "./realtime.js";
import { TOOLS, run } from "./tools.js";

const $ = (id) => document.getElementById(id);
const SAY = {
  idle: "Press Start and speak",
  connecting: "Connecting…",
  listening: "Listening",
  hearing: "Hearing you…",
  thinking: "Thinking…",
  speaking: "Speaking",
  paused: "Paused",
  refused: "Refused",
  lost: "Connection lost",
  reconnecting: "Going on with another server…",
};
const INSECURE =
  "Browsers give the microphone to such pages only. Open this one by https, or through a tunnel: " +
  "ssh -L 8000:localhost:8000 the-server, then http://localhost:8000";
const FAILURES = {
  context_length_exceeded: "the conversation is too long for the model; press Stop and start anew",
  engine_busy: "the server is busy; try again in a moment",
};
const SILENT = "The server gives no sign of life. One moment…";
// The last: what was interrupted may have left the conversation, because the turn before it went on.
const BENIGN = ["response_cancel_not_active", "item_truncate_invalid_item_id"];
const TAP_MS = 250; // a button that is held for less was not meant to record
const ECHO_SECONDS = 1.5; // an answer that is interrupted this soon, again and again, hears itself
const ECHOES = 3;

let session = null; // everything that lives between Start and Stop

function show(state, detail = "") {
  $("state").dataset.state = state;
  $("state").textContent = detail ? `${SAY[state]}: ${detail}` : SAY[state];
}

// Something that does not end the session: it stays for a while beside the state.
function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function authorised() {
  const key = $("key").value;
  return key ? { headers: { Authorization: `Bearer ${key}` } } : {};
}

async function fetchJson(path) {
  const reply = await fetch(path, authorised());
  if (!reply.ok) throw new Error(`${path}: ${reply.status}`);
  return reply.json();
}

async function describeServer() {
  try {
    const [models, voices] = await Promise.all([fetchJson("v1/models"), fetchJson("v1/voices")]);
    $("model").textContent = `Model: ${models.data[0].id}`;
    $("model").dataset.id = models.data[0].id;
    offerHints();
    $("voice").replaceChildren(...voices.data.map((v) => new Option(v.name ?? v.id, v.id)));
    $("voice").value = (voices.data.find((v) => v.default) ?? voices.data[0]).id;
  } catch {
    $("key-box").open = true; // the usual reason is that the server wants a key
  }
}

// What the model can be asked, and told to do where it may call functions.
function offerHints(mayCall = false) {
  const questions = hintsOf($("model").dataset.id, mayCall);
  $("hints").replaceChildren(
    ...questions.map((question) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = question;
      button.addEventListener("click", () => ask(question));
      return button;
    }),
  );
  $("hints").hidden = questions.length === 0;
}

const pushToTalk = () => document.querySelector("[name=mode]:checked").value === "push-to-talk";

function sessionConfig(rate, hasSpoken) {
  const format = { type: "audio/pcm", rate };
  const voice = hasSpoken ? undefined : $("voice").value || undefined; // cannot change any more
  return {
    type: "realtime",
    output_modalities: ["audio"],
    audio: {
      input: {
        format,
        turn_detection: pushToTalk() ? null : { type: "semantic_vad" },
        transcription: { model: "gpt-realtime-whisper" }, // this name: words while they are spoken
      },
      output: { format, voice, speed: Number($("speed").value) },
    },
    tools: $("tools").checked ? TOOLS : [],
    aqaa: { extensions: ["latency", "interruptions"] },
  };
}

class Session {
  constructor() {
    this.captions = new Captions($("captions"));
    this.capturing = false;
    this.ready = false;
    this.hasSpoken = false; // the server has: its voice stays from then on
    this.asked = []; // typed before the session was ready
    this.echoes = 0; // answers in a row that were interrupted as soon as they began
    this.answer = null; // item id that is being heard
    this.making = false; // the server is still making it
    this.calling = new Set(); // responses that called something and are not over
    this.goesOn = null; // the answer that another goes on from once it has been heard
    this.latencies = new Latencies($("turns"));
  }

  async start() {
    const context = await openContext();
    this.context = context;
    if (this.ended) return context.close(); // Stop was pressed meanwhile
    context.onstatechange = () => this.onContext();
    this.clockOfSent = context.currentTime; // when the newest of what was sent was captured
    this.speaker = new Speaker(context, (report) => this.onReport(report));
    this.microphone = await Microphone.open(
      context,
      (block) => this.onBlock(block),
      () => this.ended || stop("lost", "the microphone was unplugged; press Start to use another"),
    );
    if (this.ended) return this.microphone.close(); // while the browser asked
    const model = $("model").dataset.id ?? "nano";
    this.wire = new Realtime({ model, key: $("key").value, rate: context.sampleRate });
    this.wire.addEventListener("event", ({ detail }) => this.onEvent(detail));
    this.wire.addEventListener("trouble", () => this.onTrouble());
    this.wire.addEventListener("silent", ({ detail }) => notice(detail ? SILENT : ""));
    this.wire.addEventListener("closed", ({ detail }) => this.onClosed(detail));
  }

  stop() {
    this.ended = true;
    this.wire?.close();
    this.microphone?.close();
    if (this.context && this.context.state !== "closed") this.context.close();
  }

  configure() {
    if (!this.wire?.open) return;
    this.wire.configure(sessionConfig(this.context.sampleRate, this.hasSpoken));
  }

  // The browser stops the sound for a phone call, a locked screen, or a tab in the background.
  onContext() {
    if (this.ended) return;
    if (this.context.state === "running") {
      if ($("state").dataset.state === "paused") show("listening");
    } else {
      $("level-in").value = $("level-out").value = 0;
      show("paused", "the browser has stopped the sound; come back to this page or tap it");
    }
  }

  resume() {
    if (!this.ended && this.context && this.context.state !== "running") this.context.resume();
  }

  // Back to waiting for the user, unless something else is going on.
  settle() {
    if ($("state").dataset.state === "thinking") show("listening");
  }

  onBlock({ pcm, peak, at }) {
    $("level-in").value = Math.sqrt(peak);
    if (!this.capturing || !this.wire) return;
    this.clockOfSent = at;
    this.wire.append(pcm);
  }

  press() {
    if (!this.ready) return;
    notice("");
    this.pressed = performance.now();
    this.interrupt();
    this.wire.send("input_audio_buffer.clear");
    this.capturing = true;
    show("hearing");
  }

  release() {
    if (!this.capturing) return;
    this.capturing = false;
    if (performance.now() - this.pressed < TAP_MS) {
      this.wire.send("input_audio_buffer.clear");
      show("listening");
      notice("Hold the button while you speak.");
      return;
    }
    this.latencies.ended(this.context.currentTime);
    this.wire.send("input_audio_buffer.commit");
    this.wire.send("response.create");
    show("thinking");
  }

  say(text) {
    if (!this.ready) {
      this.asked.push(text);
      return;
    }
    notice("");
    this.interrupt();
    this.captions.you(text);
    this.latencies.ended(this.context.currentTime);
    const content = [{ type: "input_text", text }];
    this.wire.send("conversation.item.create", { item: { type: "message", role: "user", content } });
    this.wire.send("response.create");
    show("thinking");
  }

  // The next question takes the place of an answer that is heard, or has not begun.
  interrupt() {
    if (this.answer !== null || this.wire.isAsked) this.wire.send("response.cancel");
    this.silence();
  }

  // At once; the server is told how much was heard when the loudspeaker has said it.
  silence() {
    if (this.answer === null) return;
    this.speaker.interrupt(this.answer);
    this.captions.cut(this.answer);
    this.answer = null;
  }

  onEvent(event) {
    switch (event.type) {
      case "session.created":
        this.hasSpoken = false; // in this session
        this.configure();
        break;
      case "session.updated":
        this.capturing = !pushToTalk() || $("talk").ariaPressed === "true";
        if ($("state").dataset.state === "reconnecting") show("listening");
        this.hasWords = event.session.audio.input.transcription !== null;
        offerHints(event.session.tools.length > 0);
        if (!this.ready) {
          this.ready = true;
          show("listening");
          for (const text of this.asked.splice(0)) this.say(text);
        }
        break;
      case "input_audio_buffer.committed":
        if (this.hasWords) this.captions.listen(event.item_id);
        break;
      case "conversation.item.input_audio_transcription.delta":
        this.captions.heard(event.item_id, event.delta);
        break;
      case "conversation.item.input_audio_transcription.completed":
        this.captions.understood(event.item_id, event.transcript);
        break;
      case "conversation.item.input_audio_transcription.failed":
        this.captions.understood(event.item_id, "");
        break;
      case "input_audio_buffer.speech_started":
        if (this.answer !== null) this.countEcho();
        this.silence();
        show("hearing");
        break;
      case "input_audio_buffer.speech_stopped":
        this.latencies.ended(this.clockOfSent - this.wire.heardSeconds + event.audio_end_ms / 1000);
        show("thinking");
        break;
      case "response.output_item.added":
        if (event.item.type !== "message") break;
        this.hasSpoken = true;
        $("voice").disabled = true;
        $("voice-help").hidden = false;
        this.answer = event.item.id;
        this.making = true;
        this.soundless = true;
        this.startedAt = null;
        this.speaker.begin(event.item.id);
        this.captions.begin(event.item.id);
        break;
      case "response.output_audio_transcript.delta":
        this.captions.text(event.item_id, event.delta);
        break;
      case "response.output_audio.delta": {
        const samples = fromBase64(event.delta);
        if (samples.length > 0) this.soundless = false;
        this.captions.sound(event.item_id, samples.length);
        this.speaker.play(event.item_id, samples);
        break;
      }
      case "response.output_audio.done":
        this.speaker.end(event.item_id);
        break;
      case "response.function_call_arguments.done":
        this.onCall(event);
        break;
      case "aqaa.latency":
        this.latencies.account(event.stages);
        break;
      case "aqaa.interruption": // somebody seems to speak into the answer, or it was nothing
        this.speaker.duck(event.state === "suspected");
        break;
      case "conversation.item.deleted": // a part of a turn that went on, and the answer to it
        this.captions.remove(event.item_id);
        this.latencies.takeBack(event.item_id);
        break;
      case "response.done":
        this.onDone(event.response);
        break;
      case "error":
        if (BENIGN.includes(event.error.code)) break;
        notice(event.error.message);
        this.settle();
        break;
    }
  }

  onCall({ response_id, call_id, name, arguments: given }) {
    const output = run(name, JSON.parse(given), () => this.ended || notice("The timer is over."));
    this.captions.called(name, given, output);
    this.calling.add(response_id);
    this.wire.send("conversation.item.create", { item: { type: "function_call_output", call_id, output } });
  }

  // However an answer ends, "Thinking" does not stay, unless the model is to go on from what it called.
  onDone({ id, status, status_details, output }) {
    this.making = false;
    if (this.calling.delete(id) && status === "completed") {
      if (this.answer === null || this.soundless) this.wire.send("response.create");
      else this.goesOn = this.answer;
      return;
    }
    if (status === "failed") {
      const code = status_details?.error?.code ?? "unknown";
      notice(`There is no answer: ${FAILURES[code] ?? `the server reports ${code}`}`);
    }
    const item = output.find(({ type }) => type === "message")?.id;
    if (status === "cancelled") { // by what the page shows already
      if (item === this.answer) this.silence(); // it began while it was being cancelled
      return;
    }
    if (item !== undefined && item === this.answer && this.soundless) {
      this.captions.finish(item);
      this.answer = null;
    }
    if (this.answer === null) this.settle();
  }

  countEcho() {
    const soon = this.startedAt !== null && this.context.currentTime - this.startedAt < ECHO_SECONDS;
    this.echoes = soon ? this.echoes + 1 : 0;
    if (this.echoes >= ECHOES) {
      notice("aqaa seems to hear its own voice: use a headset, or turn the loudspeaker down.");
    }
  }

  onReport({ kind, item, played, gaps, peak, at }) {
    const over = kind === "finished" || kind === "interrupted"; // nothing more is reported
    $("level-out").value = over ? 0 : Math.sqrt(peak);
    if (kind === "interrupted") {
      const audio_end_ms = Math.round((played / this.context.sampleRate) * 1000);
      this.wire.send("conversation.item.truncate", { item_id: item, content_index: 0, audio_end_ms });
      return;
    }
    if (item !== this.answer) return;
    this.captions.played(item, played);
    if (kind === "started") {
      show("speaking");
      this.startedAt = at;
      this.latencies.heard(item, at);
    }
    this.latencies.gaps(gaps);
    if (kind === "finished") {
      this.captions.finish(item);
      this.answer = null;
      if (item === this.goesOn) this.wire.send("response.create");
      show(item === this.goesOn ? "thinking" : "listening");
    }
  }

  // What was being made comes again, whole; what is made is heard to its end.
  onTrouble() {
    if (this.making) this.silence();
    show("reconnecting");
  }

  onClosed({ code, reason }) {
    if (this.ended) return;
    const full = code === 1013 ? "the server is full, try again in a moment" : "";
    const refused = code === 1013 || code === 1008;
    stop(refused ? "refused" : "lost", reason || full || `code ${code}; press Start to try again`);
  }
}

function setRunning(running) {
  $("start").textContent = running ? "Stop" : "Start";
  $("start").classList.toggle("primary", !running);
  for (const control of $("typed").elements) control.disabled = !running;
  const talk = running && pushToTalk();
  $("talk").hidden = $("talk-help").hidden = !pushToTalk();
  $("talk").disabled = !talk;
  if (!talk) $("talk").ariaPressed = "false"; // nobody hears of it any more when it is let go
  $("voice").disabled = running && session?.hasSpoken === true;
  $("voice-help").hidden = !$("voice").disabled;
}

function stop(state = "idle", detail = "") {
  session?.stop();
  session = null;
  $("level-in").value = $("level-out").value = 0;
  setRunning(false);
  show(state, detail);
}

async function start() {
  if (!isSecureContext) return refuseInsecure();
  notice("");
  show("connecting");
  const mine = (session = new Session());
  setRunning(true);
  try {
    await mine.start();
  } catch (error) {
    if (session === mine) stop("refused", explain(error));
  }
}

function refuseInsecure() {
  show("refused", "this page needs https or localhost");
  notice(INSECURE);
}

function explain(error) {
  switch (error.name) {
    case "NotAllowedError": return "allow the microphone for this page, then press Start";
    case "NotFoundError": return "there is no microphone; plug one in, then press Start";
    case "NotReadableError": return "another program uses the microphone; close it, then press Start";
    default: return error.message;
  }
}

function ask(question) {
  if (session === null) start();
  session?.say(question);
}

function hold(pressed) {
  if (!session || $("talk").disabled || ($("talk").ariaPressed === "true") === pressed) return;
  $("talk").ariaPressed = String(pressed);
  if (pressed) session.press();
  else session.release();
}

$("start").addEventListener("click", (event) => {
  if (event.detail > 1) return; // the second half of a double click
  if (session) stop();
  else start();
});
for (const kind of ["visibilitychange", "pointerdown", "keydown"]) {
  document.addEventListener(kind, () => document.hidden || session?.resume());
}
$("talk").addEventListener("pointerdown", (event) => {
  $("talk").setPointerCapture(event.pointerId);
  hold(true);
});
for (const end of ["pointerup", "pointercancel"]) $("talk").addEventListener(end, () => hold(false));
const isTyping = (target) => target.matches("input:not([type=radio]), select");
addEventListener("keydown", (event) => {
  if (event.code === "Space" && !event.repeat && pushToTalk() && session && !isTyping(event.target)) {
    event.preventDefault();
    hold(true);
  }
});
addEventListener("keyup", (event) => event.code === "Space" && hold(false));
$("typed").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (session && text) session.say(text);
  $("text").value = "";
});
$("mode").addEventListener("change", () => {
  setRunning(session !== null);
  session?.configure();
});
$("speed").addEventListener("input", () => {
  $("speed-shown").textContent = `${Number($("speed").value).toFixed(2)}×`;
});
for (const control of ["speed", "voice", "tools"]) $(control).addEventListener("change", () => session?.configure());
$("key-form").addEventListener("submit", (event) => event.preventDefault());
$("key").addEventListener("change", describeServer);
describeServer();
if (!isSecureContext) refuseInsecure();
