// What a token is called, and how likely it was.

import { fromBase64 } from "./dom.js";

const encoder = new TextEncoder();

// Characters that show nothing, or that change the order of others, and what is shown instead.
const NAMES = { " ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥" };
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}]|[^\S ]| /gu;

/** Return a text with white space and control characters made visible. */
export function visible(text) {
  return text.replace(UNSEEN, (character) => {
    if (character in NAMES) return NAMES[character];
    return `⟨${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

/**
 * Return the name of a token, such as "␣the". A token that is no whole character has its bytes in its name, and the
 * character that it completes after the bytes `before`.
 */
export function nameOf(token, before = new Uint8Array()) {
  if (token.special) return token.special;
  if (token.text === "") return "(nothing)";
  if (token.text !== null) return visible(token.text);
  const bytes = bytesOf(token);
  const nameOfByte = (byte) =>
    byte < 128 ? visible(String.fromCharCode(byte)) : `⟨${byte.toString(16).toUpperCase()}⟩`;
  const name = [...bytes].map(nameOfByte).join("");
  try {
    const whole = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(joined(before, bytes));
    return `${visible(whole)} ${name}`;
  } catch {
    return name;
  }
}

/** Return the bytes at the end of a text that begin a character and do not complete it. */
export function incompleteEnd(bytes) {
  for (let length = 1; length <= Math.min(3, bytes.length); length += 1) {
    const first = bytes[bytes.length - length];
    if (first < 128) break;
    if (first < 192) continue; // A byte inside a character.
    const whole = first >= 240 ? 4 : first >= 224 ? 3 : 2;
    return length < whole ? bytes.slice(-length) : new Uint8Array();
  }
  return new Uint8Array();
}

/** Return the bytes of one array after those of another. */
export function joined(one, other) {
  return Uint8Array.from([...one, ...other]);
}

/** Return the UTF-8 bytes of a token. */
export function bytesOf(token) {
  if (token.special) return new Uint8Array();
  return token.text === null ? fromBase64(token.bytes) : encoder.encode(token.text);
}

/** Return the text of tokens; bytes that are not UTF-8 become U+FFFD. Special tokens have no text. */
export function textOf(tokens) {
  const decoder = new Characters();
  return tokens.map((token) => decoder.add(token)).join("") + decoder.end();
}

/** A decoder that gives each token the characters that it completes. */
export class Characters {
  constructor() {
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  }

  /** Return the characters that a token completes. */
  add(token) {
    return this.decoder.decode(bytesOf(token), { stream: true });
  }

  /** Return U+FFFD for bytes at the end that are no whole character. */
  end() {
    return this.decoder.decode();
  }
}

/** Return a probability in percent, such as "43 %", for its logarithm. */
export function percent(logprob) {
  const value = 100 * Math.exp(logprob);
  if (value < 0.1) return "<0.1 %";
  return value < 9.95 ? `${value.toFixed(1)} %` : `${Math.round(value)} %`;
}

// The least probability of each step of the scale, the likeliest first. The style sheet has a colour for each.
export const STEPS = [0.9, 0.5, 0.2, 0.05, 0];

/** Return the step of the scale for a logarithm of a probability: 0 for likely tokens, 4 for the least likely. */
export function stepOf(logprob) {
  const value = Math.exp(logprob);
  return STEPS.findIndex((least) => value >= least);
}
