// Compiled together with the client of clients/typescript and run by test_typescript_client.py; prints what it saw as JSON.
import { ApiError, DispatchClient, WaitTimeout, type Task } from "./index.js";

const dispatch = new DispatchClient({ url: process.argv[2]!, retry: { first: 0.05 } });

async function refusedWith(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(
    () => "accepted",
    (error: unknown) => (error instanceof ApiError ? `${error.status} ${error.slug}` : String(error)),
  );
}

// Through connections that are cut: one task each.
const first: Task = await dispatch.submit({ type: "echo", payload: { message: "a\u2028b" } }, { idempotencyKey: process.argv[3]!, requestId: "rq-ts" });
const done = await dispatch.wait(first.taskId, 120);

const slow = await dispatch.submit({ type: "echo", payload: { message: "slow", sleepSeconds: 0.5 } });
const kinds: string[] = [];
for await (const event of dispatch.stream(slow.taskId)) kinds.push(`${event.seq} ${event.kind}`);

const later = await dispatch.submit({ type: "echo", payload: { message: "later" }, options: { delaySeconds: 3_600 } });
const timeout = await dispatch.wait(later.taskId, 1.5).catch((error: unknown) => error instanceof WaitTimeout && error.task.state);

// What has no helper is in `api`, with its types.
const listed = await dispatch.api.GET("/v1/tasks", { params: { query: { requestId: "rq-ts" } } });
const types = await dispatch.api.GET("/v1/task-types");

// @ts-expect-error an unknown task type is an error of the compiler, and of the API
const unknown = await refusedWith(dispatch.submit({ type: "ehco", payload: {} }));
// @ts-expect-error so is a payload that is none
const invalid = await refusedWith(dispatch.submit({ type: "echo", payload: { message: 7 } }));

console.log(
  JSON.stringify({
    first: first.taskId,
    done: done.status,
    result: done.result,
    kinds,
    timeout,
    listed: listed.data?.items.map((task) => task.taskId),
    types: types.data?.items.map((type) => type.name),
    unknown,
    invalid,
    missing: await refusedWith(dispatch.get("none")),
  }),
);
