// The text that is written now. There is one at a time on the page.

import { count } from "./dom.js";
import { events } from "./server.js";
import { announce } from "./session.js";

const REASONS = {
  stop: "ended by the model",
  length: "all tokens written",
  cancelled: "stopped",
  shutdown: "ended, because the server stops",
  time: "ended, because the time of a request was over",
};

class Writer {
  constructor() {
    this.controller = null;
    this.running = null;
    this.listeners = [];
  }

  get busy() {
    return this.controller !== null;
  }

  /** Call a function whenever a text begins or ends. */
  onState(listener) {
    this.listeners.push(listener);
  }

  /** Stop the text that is written now, and wait until it has ended. */
  async stop() {
    this.controller?.abort();
    await this.running;
  }

  /** Write a text, and call the handlers prompt, token, done and error. status: the element for its progress. */
  async run(status, body, handlers) {
    await this.stop();
    this.running = this.write(status, body, handlers);
    await this.running;
  }

  async write(status, body, handlers) {
    this.controller = new AbortController();
    this.changed();
    let written = 0;
    let held = [];
    let frame = 0;
    let first = null;
    const began = performance.now();
    const flush = () => {
      frame = 0;
      const tokens = held;
      held = [];
      for (const token of tokens) handlers.token(token);
      if (written) status.textContent = describe(written, began, first);
    };
    const sent = { count: 0, seed: null };
    status.textContent = "Sent …";
    announce("Writing.");
    try {
      await events("/api/generate", body, this.controller.signal, (name, data) => {
        if (name === "prompt") {
          Object.assign(sent, { count: data.count, seed: data.seed });
          status.textContent = `Reading ${count(data.count)} tokens …`;
          handlers.prompt(data.tokens, data);
        } else if (name === "waiting") {
          if (!written && data.texts) status.textContent = `Waiting. Texts in the queue: ${data.texts} …`;
        } else if (name === "token") {
          first ??= performance.now();
          written += 1;
          held.push(data);
          frame ||= requestAnimationFrame(flush); // Tokens that come in one frame are drawn together.
        } else if (name === "done") {
          cancelAnimationFrame(frame);
          flush();
          status.textContent = summary(describe(written, began, first), data, sent);
          this.end();
          handlers.done(status.textContent);
        }
      });
      if (this.busy) throw new Error("The server ended the connection before the text was complete.");
    } catch (error) {
      cancelAnimationFrame(frame);
      flush();
      this.end();
      const stopped = error.name === "AbortError";
      status.textContent = stopped ? `${describe(written, began, first)}, stopped.` : "";
      handlers.done(status.textContent);
      if (!stopped) handlers.error(error.message);
    }
  }

  end() {
    this.controller = null;
    this.changed();
  }

  changed() {
    for (const listener of this.listeners) listener();
  }
}

function summary(written, { reason, cached }, sent) {
  const again = cached ? ` ${count(cached)} of ${count(sent.count)} tokens of the prompt were not read again.` : "";
  return `${written}, ${REASONS[reason] ?? reason}.${again} Seed ${sent.seed}.`;
}

function describe(written, began, first) {
  const tokens = `${count(written)} token${written === 1 ? "" : "s"}`;
  return written > 1 ? `${tokens}, ${speed(written, began, first)}` : tokens;
}

function speed(written, began, first) {
  const seconds = (performance.now() - (written > 1 ? first : began)) / 1000;
  const each = Math.max(written - 1, 1) / Math.max(seconds, 0.001);
  return `${each < 10 ? each.toFixed(1) : count(Math.round(each))} tokens/s`;
}

export const writer = new Writer();
