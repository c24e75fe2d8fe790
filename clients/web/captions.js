// Captions timed to the sound. Each transcript delta belongs to the sound that follows it, so it is
// shown when playback reaches the sample that had been received when the delta came.
export class Captions {
  constructor(list) {
    this.list = list;
    this.items = new Map();
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

  you(text) {
    const line = document.createElement("li");
    line.className = "you";
    line.textContent = text;
    this.list.append(line);
    line.scrollIntoView({ block: "nearest" });
  }
}
