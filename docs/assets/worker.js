// Search of a page that is opened as a file: browsers start no worker for it, so this one runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(place) {
      super()
      const url = new URL(place, document.baseURI)
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      const inside = frame.contentWindow
      const answer = data => this.dispatchEvent(new MessageEvent("message", { data }))
      inside.postMessage = data => queueMicrotask(() => answer(data))
      const load = address => new Promise((done, failed) => {
        const script = inside.document.createElement("script")
        script.src = new URL(address, url)
        script.onload = done
        script.onerror = failed
        inside.document.body.append(script)
      })
      inside.importScripts = (...addresses) => addresses.reduce((before, one) => before.then(() => load(one)), Promise.resolve())
      this.inside = inside
      this.ready = load(url)
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })))
    }

    set onmessage(handler) { this.addEventListener("message", handler) }

    terminate() {}
  }
}
