// Browsers start no Worker in a page that is opened as a file, and the search of the site runs in
// one. Here its script runs in a hidden frame instead.
class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    this.frame = document.createElement('iframe');
    this.frame.hidden = true;
    document.body.append(this.frame);
    const inside = this.frame.contentWindow;
    inside.postMessage = data => this.receive(data);
    inside.importScripts = async (...urls) => {
      for (const address of urls) await this.load(address);
    };
    this.ready = this.load(url);
  }

  load(url) {
    const page = this.frame.contentDocument;
    return new Promise((done, failed) => {
      const script = page.createElement('script');
      script.onload = done;
      script.onerror = failed;
      script.src = url;
      page.body.append(script);
    });
  }

  receive(data) {
    const event = new MessageEvent('message', {data});
    this.dispatchEvent(event);
    this.onmessage?.(event);
  }

  async postMessage(data) {
    await this.ready;
    const inside = this.frame.contentWindow;
    inside.dispatchEvent(new MessageEvent('message', {data: structuredClone(data)}));
  }

  terminate() {
    this.frame.remove();
  }
}

if (location.protocol === 'file:') window.Worker = FrameWorker;
