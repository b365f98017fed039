-- The requests of one run of wrk, from the environment (harness/wrk.py), and one line of figures in the end.
local body = os.getenv("BODY") or ""
wrk.method = body == "" and "GET" or "POST"
if body ~= "" then
  wrk.body = body
  wrk.headers["Content-Type"] = "application/json"
end
for line in (os.getenv("HEADERS") or ""):gmatch("[^\n]+") do
  local name, value = line:match("^(.-): (.*)$")
  wrk.headers[name] = value
end

if os.getenv("KEYED") == "1" then
  local run_id, number = os.getenv("RUN_ID"), 0
  request = function()
    number = number + 1
    wrk.headers["Idempotency-Key"] = run_id .. "-" .. number
    return wrk.format()
  end
end

done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    "OUTCOME %d %d %d %d %d %d\n", summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, latency:percentile(50), latency:percentile(99)))
end
