// The search runs in a worker, which browsers deny to pages opened as files: there, a hidden frame takes its place.
class IFrameWorker {
  constructor(url) {
    const frame = document.createElement("iframe");
    frame.hidden = true;
    document.body.appendChild(frame);
    this.inside = frame.contentWindow;
    const run = (source) => new Promise((done, failed) => {
      const script = this.inside.document.createElement("script");
      Object.assign(script, { src: source, onload: done, onerror: failed });
      this.inside.document.body.appendChild(script);
    });
    this.inside.postMessage = (data) => {
      const event = new MessageEvent("message", { data });
      this.listeners.forEach((listener) => listener(event));
      if (this.onmessage) this.onmessage(event);
    };
    this.inside.importScripts = (...sources) => sources.reduce((ready, one) => ready.then(() => run(one)), Promise.resolve());
    this.listeners = [];
    this.ready = run(url);
  }
  addEventListener(type, listener) {
    if (type === "message") this.listeners.push(listener);
  }
  removeEventListener(type, listener) {
    this.listeners = this.listeners.filter((one) => one !== listener);
  }
  postMessage(data) {
    this.ready.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })));
  }
}

if (location.protocol === "file:") {
  window.IFrameWorker = IFrameWorker;
  window.Worker = IFrameWorker;
}
