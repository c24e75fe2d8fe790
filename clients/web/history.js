// What the page must remember so that its conversation can go on in another session: the twin of
// clients/history.py, which says why. `sent` and `received` follow the events; `replay` gives what a new
// session must be sent. Sound is PCM16 at the session's rate, in Int16Arrays.
import { toBase64 } from "./audio.js";

const SOUND_SECONDS = 60; // that is kept of the newest turns, and of what no turn holds yet
const LISTEN_SECONDS = 1; // of sound that is told though nobody was heard in it
const MOST_ITEMS = 200;
export const NOTHING_SPOKEN = "input_audio_buffer_commit_empty"; // the error's code

export const newItemId = () => `item_${crypto.randomUUID().replaceAll("-", "").slice(0, 20)}`;

function answerItem(id, words) {
  const transcript = words.map(([, word]) => word).join("");
  return { type: "message", id, role: "assistant", content: [{ type: "output_audio", transcript }] };
}

export class History {
  constructor(rate) {
    this.rate = rate;
    this.items = new Map(); // in the conversation's order
    this.unfinished = new Set(); // answers in the making
    this.retold = new Set(); // answers that the present session has not spoken itself
    this.asked = null; // response.create's fields, for an answer that is not over
    this.hearsTurns = true; // the server finds turns by itself
    this.blocks = []; // [first sample, Int16Array]: sound of this session
    this.heardUntil = 0; // in samples, as all places here
    this.toldUntil = 0; // items hold the sound before
    this.speechFrom = null;
    this.commitAt = null;
  }

  // Returns [type, fields] of what the present session must be sent for it: a session cuts no answer that it did
  // not speak, so one that it was told is replaced by what was heard of it.
  sent(type, fields) {
    if (type === "conversation.item.truncate") {
      if (!this.items.has(fields.item_id)) return []; // of an answer that comes again
      if (this.retold.has(fields.item_id)) return this.replaced(fields);
    }
    this.note(type, fields);
    return [[type, fields]];
  }

  note(type, fields) {
    switch (type) {
      case "input_audio_buffer.commit":
        this.commitAt = this.heardUntil;
        break;
      case "input_audio_buffer.clear":
        this.toldUntil = this.heardUntil;
        this.speechFrom = null;
        break;
      case "conversation.item.create":
        this.keep(fields.item.id, { told: fields.item });
        break;
      case "conversation.item.truncate":
        this.cut(fields);
        break;
      case "response.create":
        this.asked = fields;
        break;
      case "response.cancel":
        this.asked = null;
        break;
    }
  }

  sound(pcm) {
    this.blocks.push([this.heardUntil, pcm]);
    this.heardUntil += pcm.length;
    this.forget(this.heardUntil - SOUND_SECONDS * this.rate);
  }

  received(event) {
    switch (event.type) {
      case "session.updated":
        this.hearsTurns = event.session.audio.input.turn_detection !== null;
        break;
      case "input_audio_buffer.speech_started":
        this.speechFrom = this.place(event.audio_start_ms);
        break;
      case "input_audio_buffer.speech_stopped":
        this.commitAt = this.place(event.audio_end_ms);
        break;
      case "input_audio_buffer.committed": {
        const end = this.commitAt ?? this.heardUntil;
        if (this.speechFrom !== null) this.asked = {};
        this.keep(event.item_id, { sound: this.between(this.speechFrom ?? this.toldUntil, end) });
        this.toldUntil = Math.max(this.toldUntil, end);
        this.speechFrom = this.commitAt = null;
        break;
      }
      case "conversation.item.input_audio_transcription.completed": {
        const turn = this.items.get(event.item_id);
        if (turn) turn.text = event.transcript;
        break;
      }
      case "conversation.item.deleted":
        this.items.delete(event.item_id);
        break;
      case "response.created":
        this.asked ??= {};
        break;
      case "response.function_call_arguments.done": {
        const { item_id: id, call_id, name } = event;
        this.keep(id, { told: { type: "function_call", id, call_id, name, arguments: event.arguments } });
        break;
      }
      case "response.output_item.added":
        if (event.item.type !== "message") break;
        this.keep(event.item.id, { words: [], samples: 0 });
        this.unfinished.add(event.item.id);
        break;
      case "response.output_audio_transcript.delta": {
        const answer = this.items.get(event.item_id);
        answer?.words.push([answer.samples, event.delta]);
        break;
      }
      case "response.output_audio.delta": {
        const answer = this.items.get(event.item_id);
        if (answer) answer.samples += (event.delta.length / 4) * 1.5 - (event.delta.endsWith("==") ? 1 : event.delta.endsWith("=") ? 0.5 : 0);
        break;
      }
      case "error": // it refuses a commit, and then the answer to it that was asked for
        if (event.error.code !== NOTHING_SPOKEN) break;
        if (this.commitAt === null) this.asked = null;
        this.commitAt = null;
        break;
      case "response.done":
        this.asked = null;
        this.unfinished.clear();
        break;
    }
  }

  // [type, fields] of what a new session must be sent after its settings. An answer that was being given is
  // asked for again, from its beginning. Of the newest sound so many seconds had no server to hear them.
  replay(unheard = 0) {
    for (const id of this.unfinished) this.items.delete(id);
    this.unfinished.clear();
    const events = this.told().map((item) => ["conversation.item.create", { item }]);
    this.retold = new Set([...this.items].filter(([, { words }]) => words).map(([id]) => id));
    const pending = this.speechFrom ?? (this.hearsTurns ? this.heardUntil - (unheard + LISTEN_SECONDS) * this.rate : 0);
    const sound = this.between(Math.max(pending, this.toldUntil), this.heardUntil);
    // A session that hears turns finds their end by itself; what was cleared is no turn.
    const isDue = !this.hearsTurns && this.commitAt !== null && this.commitAt > this.toldUntil;
    this.commitAt = isDue ? sound.length : null;
    this.blocks = sound.length > 0 ? [[0, sound]] : [];
    this.heardUntil = sound.length;
    this.toldUntil = 0;
    if (this.speechFrom !== null) this.speechFrom = 0; // until the new session says where, if it comes to that
    for (let at = 0; at < sound.length; at += this.rate) {
      events.push(["input_audio_buffer.append", { audio: toBase64(sound.subarray(at, at + this.rate)) }]);
    }
    if (isDue) events.push(["input_audio_buffer.commit", {}]);
    if (this.asked !== null) events.push(["response.create", this.asked]);
    return events;
  }

  // The items, without what came before a turn that has neither sound nor words left.
  told() {
    const told = [];
    for (const [id, { told: item, words, sound, text }] of [...this.items].reverse()) {
      if (item) told.push(item);
      else if (words?.length === 0) continue;
      else if (words) told.push(answerItem(id, words));
      else {
        if (!sound && !text) break;
        const heard = sound && { type: "input_audio", audio: toBase64(sound), transcript: text ?? null };
        const content = [heard ?? { type: "input_text", text }];
        told.push({ type: "message", id, role: "user", content });
      }
    }
    const calls = new Set(told.filter(({ type }) => type === "function_call").map(({ call_id }) => call_id));
    return told.reverse().filter(({ type, call_id }) => type !== "function_call_output" || calls.has(call_id));
  }

  cut({ item_id, audio_end_ms }) {
    const answer = this.items.get(item_id);
    if (answer?.words) answer.words = answer.words.filter(([at]) => at < this.place(audio_end_ms));
  }

  replaced(fields) {
    const old = fields.item_id;
    this.retold.delete(old);
    this.cut(fields);
    const id = newItemId();
    this.items = new Map([...this.items].map(([name, item]) => [name === old ? id : name, item]));
    const { words } = this.items.get(id);
    const removal = ["conversation.item.delete", { item_id: old }];
    if (words.length === 0) return [removal];
    return [["conversation.item.create", { previous_item_id: old, item: answerItem(id, words) }], removal];
  }

  keep(id, item) {
    this.items.set(id, item);
    let sound = 0;
    for (const old of [...this.items.values()].reverse()) {
      sound += old.sound?.length ?? 0;
      if (sound > SOUND_SECONDS * this.rate) old.sound = null;
    }
    while (this.items.size > MOST_ITEMS) this.items.delete(this.items.keys().next().value);
  }

  place(milliseconds) {
    return Math.round((milliseconds / 1000) * this.rate);
  }

  forget(before) {
    while (this.blocks.length > 0 && this.blocks[0][0] + this.blocks[0][1].length <= before) this.blocks.shift();
  }

  between(begin, end) {
    const pieces = this.blocks.map(([at, pcm]) => pcm.subarray(Math.max(0, begin - at), Math.max(0, end - at)));
    const sound = new Int16Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      sound.set(piece, at);
      at += piece.length;
    }
    return sound;
  }
}
