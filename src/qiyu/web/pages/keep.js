// @ts-check
/** What the browser keeps of what somebody chose; a browser that keeps nothing forgets it. */

const PREFIX = "qiyu.";

/** @param {string} name @returns {string|null} */
export function kept(name) {
  try {
    return localStorage.getItem(PREFIX + name);
  } catch {
    return null;
  }
}

/** @param {string} name @param {string|null} value */
export function keep(name, value) {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, value);
  } catch {
    // full, or not allowed
  }
}
