// @ts-check
/** The HTTP calls (docs/http-api.md), at addresses relative to the page's. */

/** A call was not done; `code` 0 is that nobody answered. */
export class CallFailed extends Error {
  /** @param {number} code @param {string} reason @param {number} [retryAfter] seconds */
  constructor(code, reason, retryAfter = 0) {
    super(`${code}: ${reason}`);
    this.code = code;
    this.reason = reason;
    this.retryAfter = retryAfter;
  }
}

/**
 * @param {string} path such as "living/list"
 * @param {Record<string, any>} [parameters]
 * @returns {Promise<any>} the answer's `data`
 */
export async function call(path, parameters = {}) {
  let response;
  let answer;
  try {
    response = await fetch(new URL(path, document.baseURI), {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify(parameters),
      credentials: "same-origin",
      signal: AbortSignal.timeout(15_000),
    });
    answer = await response.json();
  } catch (error) {
    throw new CallFailed(0, String(error));
  }
  if (answer.code === 200) return answer.data;
  throw new CallFailed(Number(answer.code), String(answer.msg), Number(response.headers.get("Retry-After") ?? 0));
}
