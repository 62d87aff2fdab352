// Requests to the server: JSON, streams of events, the token of the user, and errors in words.

const TOKEN = "tensorlite-token";

let askForToken = async () => null;
const listeners = new Set();

/** An error that the server has answered with. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The error of a server that does not answer. */
export class Unreachable extends Error {
  constructor() {
    super("The server does not answer. Start it again with python -m gpt serve.");
  }
}

/** Set the function that asks the user for the token of the server; it returns a promise of a text or null. */
export function setTokenDialog(dialog) {
  askForToken = dialog;
}

/** Call `listener(reachable)` when the server stops to answer, and when it answers again. */
export function onReachable(listener) {
  listeners.add(listener);
}

let reachable = true;

function setReachable(now) {
  if (now === reachable) return;
  reachable = now;
  for (const listener of listeners) listener(now);
  if (!now) setTimeout(probe, 1000, 1000);
}

async function probe(delay) {
  try {
    await fetch("/healthz", { cache: "no-store" });
    setReachable(true);
  } catch {
    setTimeout(probe, Math.min(2 * delay, 10000), Math.min(2 * delay, 10000));
  }
}

/** Return the answer to a request. Throws ServerError, Unreachable, and the AbortError of a signal. */
export async function request(path, { body, signal, headers = {} } = {}) {
  const options = { signal, headers: { ...headers }, method: body === undefined ? "GET" : "POST" };
  const token = sessionStorage.getItem(TOKEN);
  if (token) options.headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    setReachable(false);
    throw new Unreachable();
  }
  setReachable(true);
  if (answer.status === 401) {
    const given = await askForToken(Boolean(token));
    if (given === null) throw new ServerError(401, "The server needs its token.");
    sessionStorage.setItem(TOKEN, given);
    return request(path, { body, signal, headers });
  }
  if (!answer.ok && answer.status !== 304) throw new ServerError(answer.status, await errorText(answer));
  return answer;
}

/** Return the JSON that answers a request. */
export async function json(path, options) {
  return (await request(path, options)).json();
}

/** Call `onEvent(name, data)` for each server-sent event of an answer. */
export async function events(path, body, signal, onEvent) {
  const answer = await request(path, { body, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      const blocks = held.split("\n\n");
      held = blocks.pop();
      for (const block of blocks) dispatch(block, onEvent);
    }
  } catch (error) {
    if (error instanceof ServerError || error.name === "AbortError") throw error;
    if (!(error instanceof TypeError)) throw error;
    setReachable(false); // The connection broke while the text was written.
    throw new Unreachable();
  }
}

function dispatch(block, onEvent) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  if (!data.length) return;
  const values = JSON.parse(data.join("\n"));
  if (name === "error") throw new ServerError(values.status ?? 500, values.message);
  onEvent(name, values);
}

async function errorText(answer) {
  const text = await answer.text();
  try {
    const values = JSON.parse(text);
    const message = values.error?.message ?? values.detail ?? values.message;
    if (typeof message === "string") return message;
    if (Array.isArray(message)) return message.map((part) => part.msg ?? String(part)).join("; ");
  } catch {
    // A proxy may answer with HTML. Its status says enough.
  }
  return `The server answered with the status ${answer.status}.`;
}
