// Microphone -> 40 ms blocks of PCM16, with their peak level. Stereo microphones are averaged.
const BLOCK_SECONDS = 0.04;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.begin();
  }

  begin() {
    this.block = new Int16Array(Math.round(sampleRate * BLOCK_SECONDS)); // the last one was given away
    this.filled = 0;
    this.peak = 0;
  }

  process([input]) {
    const channels = input.length;
    if (channels === 0) return true;
    for (let i = 0; i < input[0].length; i++) {
      let x = 0;
      for (const channel of input) x += channel[i];
      x = Math.max(-1, Math.min(1, x / channels));
      this.peak = Math.max(this.peak, Math.abs(x));
      this.block[this.filled++] = Math.round(x * 32767);
      if (this.filled === this.block.length) this.send();
    }
    return true;
  }

  send() {
    const pcm = this.block;
    this.port.postMessage({ pcm, peak: this.peak, at: currentTime }, [pcm.buffer]);
    this.begin();
  }
}

registerProcessor("capture", Capture);
