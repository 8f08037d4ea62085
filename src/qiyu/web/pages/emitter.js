// @ts-check
/** Tells listeners, by name. */
export class Emitter {
  /** @type {Map<string, Set<(event?: any) => void>>} */
  #listeners = new Map();

  /** Be told; returns what ends it. @param {string} name @param {(event?: any) => void} listener */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** @param {string} name @param {any} [event] */
  emit(name, event) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) listener(event);
  }
}
