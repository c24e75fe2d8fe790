// The OpenAI Realtime GA protocol over a WebSocket, as far as this page needs it.
// Close codes: 1013 = full or still loading, 1008 = key or origin refused, 1012 = it restarts.
export class Realtime extends EventTarget {
  constructor({ model, key }) {
    super();
    const url = new URL("v1/realtime", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("model", model);
    const protocols = key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"];
    this.socket = new WebSocket(url, protocols);
    this.socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      this.dispatchEvent(new CustomEvent("event", { detail: event }));
    };
    this.socket.onclose = ({ code, reason }) =>
      this.dispatchEvent(new CustomEvent("closed", { detail: { code, reason } }));
  }

  get open() { return this.socket.readyState === WebSocket.OPEN; }

  send(type, fields = {}) {
    if (this.open) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  close() { this.socket.close(1000); }
}
