// Jitter-buffered playback of one answer at a time. It starts once PREBUFFER seconds are there (or
// the answer is complete), counts every gap, and reports how many samples of the answer were played.
const PREBUFFER_SECONDS = 0.06;
const REPORT_SECONDS = 0.05;
const FADE_SECONDS = 0.008; // an interrupted answer is faded, not chopped
const LOW = 0.2; // while it is doubtful whether somebody interrupts
const RAMP_SECONDS = 0.03;
const LONGEST_LOW_SECONDS = 1.5; // whatever becomes of the word that ends it

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.reset(null);
    this.sinceReport = 0;
    this.port.onmessage = ({ data }) => this.receive(data);
  }

  reset(item) {
    this.item = item;
    this.queue = [];
    this.offset = 0;
    this.buffered = 0;
    this.played = 0;
    this.gaps = 0;
    this.playing = false;
    this.complete = false;
    this.fade = 0;
    this.peak = 0;
    this.gain = 1;
    this.low = 0; // samples for which it is to be low yet
  }

  receive(message) {
    if (message.kind === "duck") this.low = message.low ? LONGEST_LOW_SECONDS * sampleRate : 0;
    if (message.kind === "begin") this.reset(message.item);
    if (message.item !== this.item) return;
    if (message.kind === "samples" && this.fade === 0 && message.samples.length > 0) {
      this.queue.push(message.samples);
      this.buffered += message.samples.length;
    } else if (message.kind === "end") {
      this.complete = true;
      if (!this.playing && this.buffered === 0 && this.played > 0) {
        this.gaps--; // nothing was missing: it was over
        this.finish();
      }
    } else if (message.kind === "interrupt") {
      this.fade = this.playing ? Math.round(FADE_SECONDS * sampleRate) : 0;
      this.report("interrupted");
      if (!this.playing) this.reset(null);
    }
  }

  // Towards the level that is wanted now.
  level() {
    const step = (1 - LOW) / (RAMP_SECONDS * sampleRate);
    this.gain = this.low-- > 0 ? Math.max(LOW, this.gain - step) : Math.min(1, this.gain + step);
    return this.gain;
  }

  next() {
    const head = this.queue[0];
    const x = head[this.offset++];
    this.buffered--;
    this.played++;
    if (this.offset === head.length) {
      this.queue.shift();
      this.offset = 0;
    }
    return x;
  }

  process(_, [output]) {
    const out = output[0];
    if (!this.playing && this.buffered > 0
        && (this.complete || this.buffered >= PREBUFFER_SECONDS * sampleRate)) {
      this.playing = true;
      if (this.played === 0) this.report("started");
    }
    if (this.playing) {
      for (let i = 0; i < out.length && this.buffered > 0; i++) {
        let x = this.next() * this.level();
        if (this.fade > 0) {
          x *= this.fade / (FADE_SECONDS * sampleRate);
          if (--this.fade === 0) {
            out[i] = x;
            this.reset(null);
            break;
          }
        }
        out[i] = x;
        this.peak = Math.max(this.peak, Math.abs(x));
      }
      if (this.playing && this.buffered === 0) {
        this.playing = false;
        if (this.complete) this.finish();
        else this.gaps++;
      }
    }
    for (let c = 1; c < output.length; c++) output[c].set(out);
    this.sinceReport += out.length;
    if (this.item !== null && this.sinceReport >= REPORT_SECONDS * sampleRate) this.report("playing");
    return true;
  }

  finish() {
    this.report("finished");
    this.item = null;
  }

  report(kind) {
    const { item, played, gaps, peak } = this;
    this.port.postMessage({ kind, item, played, gaps, peak, at: currentTime });
    this.sinceReport = 0;
    this.peak = 0;
  }
}

registerProcessor("playback", Playback);
