// What was said by both. An answer's text is timed to its sound: each transcript delta belongs to the sound that follows it, so it is
// shown when playback reaches the sample that had been received when the delta came.
export class Captions {
  constructor(list) {
    this.list = list;
    this.items = new Map(); // answers that are being heard
    this.turns = new Map(); // turns of the user whose words are not all known
  }

  begin(item) {
    const line = document.createElement("li");
    line.dataset.item = item;
    this.list.append(line);
    this.items.set(item, { line, pending: [], received: 0 });
  }

  text(item, delta) {
    const entry = this.items.get(item);
    entry?.pending.push({ from: entry.received, delta });
  }

  sound(item, samples) {
    const entry = this.items.get(item);
    if (entry) entry.received += samples;
  }

  played(item, samples) {
    const entry = this.items.get(item);
    if (!entry) return;
    while (entry.pending.length && entry.pending[0].from <= samples) {
      entry.line.textContent += entry.pending.shift().delta;
    }
    entry.line.scrollIntoView({ block: "nearest" });
  }

  finish(item) {
    this.played(item, Infinity);
    this.items.delete(item);
  }

  cut(item) {
    this.items.get(item)?.line.classList.add("cut");
    this.items.delete(item);
  }

  // It is no longer part of the conversation.
  remove(item) {
    this.list.querySelector(`[data-item="${CSS.escape(item)}"]`)?.remove();
    this.items.delete(item);
    this.turns.delete(item);
  }

  // What the user typed.
  you(text) {
    this.line(text);
  }

  // A turn of the user's has its place before the answer to it, even if its words come later.
  listen(turn) {
    if (!this.turns.has(turn)) {
      const line = this.line("");
      line.dataset.item = turn;
      this.turns.set(turn, line);
    }
    return this.turns.get(turn);
  }

  heard(turn, delta) {
    const line = this.listen(turn);
    line.textContent += delta;
    line.scrollIntoView({ block: "nearest" });
  }

  // All words of the turn are known; without any it has no line.
  understood(turn, transcript) {
    const line = this.listen(turn);
    line.textContent = transcript;
    if (!transcript) line.remove();
    this.turns.delete(turn);
  }

  // A function that the model called, and what it was given back.
  called(name, given, output) {
    this.line(`${name} ${given} → ${output}`, "call");
  }

  line(text, kind = "you") {
    const line = document.createElement("li");
    line.className = kind;
    line.textContent = text;
    this.list.append(line);
    line.scrollIntoView({ block: "nearest" });
    return line;
  }
}
