/** Requests that are sent again: those that change nothing more, and those whose Idempotency-Key makes all of them one. */

export interface RetryPolicy {
  /** Seconds after which no further try begins; 0: one try. */
  total: number;
  /** Seconds of the first pause at most; each doubles it. */
  first: number;
  /** Seconds of a pause at most, unless the API asks for more. */
  longest: number;
  /** Seconds for one try. */
  timeout: number;
}

const USUAL: RetryPolicy = { total: 60, first: 0.25, longest: 10, timeout: 40 };

export function sleep(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1_000));
}

/** A fetch that repeats what may be repeated. */
export function retrying(send: (request: Request) => Promise<Response>, given: Partial<RetryPolicy> = {}) {
  const policy = { ...USUAL, ...given };
  return async (request: Request): Promise<Response> => {
    const began = Date.now();
    const keyed = request.headers.has("Idempotency-Key");
    const safe = keyed || ["GET", "HEAD", "PUT", "DELETE"].includes(request.method);
    if (!request.headers.has("X-Request-Id")) request.headers.set("X-Request-Id", crypto.randomUUID()); // the same in each try
    for (let tries = 1; ; tries += 1) {
      let response: Response | undefined;
      let failure: unknown;
      try {
        response = await send(withTimeout(request, policy.timeout));
        if (!(await mayRepeat(response, safe, keyed))) return response;
      } catch (error) {
        if (!safe || request.signal.aborted) throw error;
        failure = error;
      }
      const backoff = Math.min(policy.longest, policy.first * 2 ** (tries - 1));
      const asked = Number(response?.headers.get("Retry-After") ?? NaN);
      const pause = Number.isFinite(asked) ? asked + backoff * Math.random() : backoff * (0.5 + Math.random() / 2);
      if ((Date.now() - began) / 1_000 + pause >= policy.total) {
        if (response) return response;
        throw failure;
      }
      await response?.body?.cancel();
      await sleep(pause);
    }
  };
}

async function mayRepeat(response: Response, safe: boolean, keyed: boolean): Promise<boolean> {
  if (response.status === 429) return true; // nothing was accepted
  if ([502, 503, 504].includes(response.status)) return safe;
  if (response.status !== 409 || !keyed) return false;
  const problem: unknown = await response.clone().json().catch(() => undefined);
  return (problem as { type?: string } | undefined)?.type === "/problems/idempotency-key-in-progress";
}

/** A copy, since a request can be sent once; a stream is no try, and has no end. */
function withTimeout(request: Request, seconds: number): Request {
  const copy = request.clone();
  if (copy.headers.get("Accept") === "text/event-stream") return copy;
  return new Request(copy, { signal: AbortSignal.any([copy.signal, AbortSignal.timeout(seconds * 1_000)]) });
}
