-- The requests and the report of wrk: each connection sends the prepared bodies in turn, and the report is one line of
-- JSON.
-- wrk ... -s serving.lua URL -- FOLDER N_BODIES TOKEN
local requests = {}
local next_one = 0

function init(arguments)
    local folder, n_bodies, token = arguments[1], tonumber(arguments[2]), arguments[3]
    local headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Token " .. token }
    for number = 0, n_bodies - 1 do
        local file = assert(io.open(string.format("%s/%06d.json", folder, number), "rb"))
        requests[number] = wrk.format("POST", nil, headers, file:read("*a"))
        file:close()
    end
end

function request()
    next_one = (next_one + 1) % (#requests + 1)
    return requests[next_one]
end

function done(summary, latency, _)
    local errors = summary.errors
    local n_failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format(
        '\n{"seconds": %.6f, "requests": %d, "failed": %d, "p50_ms": %.3f, "p90_ms": %.3f, "p99_ms": %.3f}\n',
        summary.duration / 1e6, summary.requests, n_failed,
        latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3
    ))
end
