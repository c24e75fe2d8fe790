// Microphone and loudspeaker behind two small classes. Both run at the device's own rate (Firefox
// connects a microphone to no other); the server converts, so that nothing is resampled here.
export async function openContext() {
  const context = new AudioContext({ latencyHint: "interactive" });
  const at = (name) => new URL(`worklets/${name}.js`, import.meta.url);
  await Promise.all(["capture", "playback"].map((name) => context.audioWorklet.addModule(at(name))));
  await context.resume();
  return context;
}

export class Microphone {
  // onBlock({pcm: Int16Array, peak: number, at: seconds on the context's clock}); onLost(): unplugged
  static async open(context, onBlock, onLost) {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
    return new Microphone(context, stream, onBlock, onLost);
  }

  constructor(context, stream, onBlock, onLost) {
    this.stream = stream;
    for (const track of stream.getTracks()) track.onended = onLost;
    this.source = context.createMediaStreamSource(stream);
    this.node = new AudioWorkletNode(context, "capture");
    this.node.port.onmessage = ({ data }) => onBlock(data);
    // It writes nothing, but Chromium runs only what leads to the loudspeaker.
    this.source.connect(this.node).connect(context.destination);
  }

  close() {
    this.source.disconnect();
    this.node.disconnect();
    this.stream.getTracks().forEach((track) => track.stop());
  }
}

export class Speaker {
  // onReport({kind: "started"|"playing"|"finished"|"interrupted", item, played, gaps, peak, at})
  constructor(context, onReport) {
    this.node = new AudioWorkletNode(context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => onReport(data);
    this.node.connect(context.destination);
  }

  begin(item) { this.node.port.postMessage({ kind: "begin", item }); }
  end(item) { this.node.port.postMessage({ kind: "end", item }); }
  duck(low) { this.node.port.postMessage({ kind: "duck", low }); }
  interrupt(item) { this.node.port.postMessage({ kind: "interrupt", item }); }

  play(item, samples) {
    this.node.port.postMessage({ kind: "samples", item, samples }, [samples.buffer]);
  }
}

export function toBase64(pcm) {
  const bytes = new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength);
  let binary = "";
  for (let i = 0; i < bytes.length; i += 8192) {
    binary += String.fromCharCode(...bytes.subarray(i, i + 8192));
  }
  return btoa(binary);
}

export function fromBase64(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return Float32Array.from(new Int16Array(bytes.buffer), (x) => x / 32768);
}
