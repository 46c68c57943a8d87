-- A wrk script: sends one request repeatedly, each time with another value and another number, and checks every response.
-- Environment: REQUEST is a file with the request in its first line and one value in each further line. `~` in the request
-- is replaced by the value, and `#` by the number. The first number is FIRST + 1. KEYS are the API keys, one in each line.
-- The requests use the keys in turn. EXPECTED is a string that each response must contain. CONNECTIONS is the number of clients.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init()
  local lines = io.lines(os.getenv("REQUEST"))
  template, values, expected = lines(), {}, os.getenv("EXPECTED")
  for line in lines do
    table.insert(values, line)
  end
  number, wrong, example = tonumber(os.getenv("FIRST")), 0, ""
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  keys = {}
  for key in os.getenv("KEYS"):gmatch("[^\n]+") do
    table.insert(keys, "Bearer " .. key)
  end
end

function request()
  number = number + 1
  local filled = { ["~"] = values[number % #values + 1], ["#"] = string.format("%09d", number) }
  wrk.headers["Authorization"] = keys[number % #keys + 1]
  return wrk.format(nil, nil, nil, (template:gsub("[~#]", filled)))
end

-- With more than 1,000 clients, the service may refuse some requests. A refused client then waits a second, as the
-- header Retry-After says. With fewer clients there is no delay function, because it costs time in wrk.
local refused = 0
if tonumber(os.getenv("CONNECTIONS")) > 1000 then
  function delay()
    if refused == 0 then
      return 0
    end
    refused = refused - 1
    return 1000
  end
end

function response(status, _, body)
  if status == 429 or status == 503 then
    refused = refused + 1
  end
  if status ~= 200 or body:find('"errors"', 1, true) or not body:find(expected, 1, true) then
    wrong, example = wrong + 1, status .. " " .. body:sub(1, 300)
  end
end

function done(summary, latency)
  local errors, wrong = summary.errors, threads[1]:get("wrong")
  local failed = errors.connect + errors.read + errors.write + errors.timeout + wrong
  local figures = '\nFIGURES {"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"errors":%d}\nEXAMPLE %s\n'
  io.write(figures:format(
    summary.requests - wrong, summary.duration, latency:percentile(50), latency:percentile(99), failed, threads[1]:get("example")
  ))
end
