// How long each answer was waited for, from the last sample of the user's speech to the first sound from the loudspeaker, and what the
// time went into: a row for each turn, the newest first, with its stages as a bar.
const ROWS = 10;
// What the bar shows, made of the server's stages; what is left of the time is the way: network and playback.
const PARTS = {
  silence: ["turn_end"],
  thinking: ["tokenise", "first_token", "first_group"],
  voice: ["first_sound", "send"],
};

export class Latencies {
  constructor(table) {
    this.table = table;
    this.turn = 0;
    this.forgetTurn();
  }

  forgetTurn() {
    this.speechEnd = null; // context time at which the user's turn ended, the silence that ended it counted in
    this.stages = null; // the server's, in milliseconds
    this.row = null;
  }

  // The user's turn is over. The next row belongs to the answer to it.
  ended(at) {
    this.forgetTurn();
    this.speechEnd = at;
  }

  // The first sound of an answer is heard.
  heard(item, at) {
    this.row = null;
    if (this.speechEnd === null) return;
    const row = this.table.insertRow(0);
    this.turn += 1;
    row.dataset.item = item;
    row.append(cell(this.turn), cell(""), cell(0));
    while (this.table.rows.length > ROWS) this.table.deleteRow(-1);
    this.row = row;
    this.waited = (at - this.speechEnd) * 1000;
    this.speechEnd = null;
    this.show();
  }

  // The server's account of it comes before or after the first sound is heard.
  account(stages) {
    this.stages = stages;
    this.show();
  }

  gaps(count) {
    if (this.row) this.row.cells[2].textContent = count;
  }

  // The answer was to a part of a turn that went on: nobody waited for it.
  takeBack(item) {
    const row = [...this.table.rows].find((one) => one.dataset.item === item);
    if (!row) return;
    row.remove();
    this.turn -= 1;
    if (row === this.row) this.row = null;
  }

  show() {
    if (!this.row) return;
    const silence = this.stages?.turn_end ?? 0;
    const total = Math.round(this.waited + silence);
    this.row.cells[1].replaceChildren(`${total} ms`, ...(this.stages ? [this.bar(total)] : []));
    const longest = Math.max(...[...this.table.rows].map((row) => parseInt(row.cells[1].textContent, 10)));
    this.table.style.setProperty("--longest", longest);
  }

  bar(total) {
    const parts = Object.entries(PARTS).map(([name, stages]) => [
      name,
      stages.reduce((sum, stage) => sum + this.stages[stage], 0),
    ]);
    const known = parts.reduce((sum, [, ms]) => sum + ms, 0);
    parts.push(["way", Math.max(0, total - known)]);
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.role = "img";
    bar.ariaLabel = bar.title = parts.map(([name, ms]) => `${name} ${Math.round(ms)} ms`).join(", ");
    for (const [name, ms] of parts) {
      const piece = document.createElement("span");
      piece.className = name;
      piece.style.setProperty("--ms", ms);
      bar.append(piece);
    }
    return bar;
  }
}

function cell(text) {
  const cell = document.createElement("td");
  cell.textContent = text;
  return cell;
}
