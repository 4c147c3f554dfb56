-- All holds or none. Answers MessagePack: {"granted", hold, grant, seen, rates} or
-- {code, seen, budget, first, outcome, retry_after, number of the rate claim, rates}.
local BUSY_RETRY = 1
local SKEW = 60000000

local run, epoch, org, attempt, once = given[2], given[3], given[4], given[5], given[6]
local at, base, unit, want, least, tokens = given[7], given[8], given[9], given[10], given[11], given[12]
local budgets, rates = given[13], given[14]

local now = clock()

local function refuse(code, seen, budget, retry, rate, state, first, outcome)
  return cmsgpack.pack({
    code, seen or {}, budget or false, first or false, outcome or false, retry or false, rate or false, state or {},
  })
end

-- Tokens of output cap that `left` pays for; -1 when not even the base fits.
local function affordable(left)
  local room = left - base
  if room < 0 then
    return -1
  end
  if unit == 0 then
    return want
  end
  return math.min(want, math.floor(room / unit))
end

local windows = {}

local function entry(key, number)
  local found = redis.call('HGET', RATES, key .. '#' .. text(number))
  if not found then
    return nil
  end
  local when, size = string.match(found, '^(%d+) (%d+)$')
  return tonumber(when), tonumber(size)
end

-- The sliding window of a rate key, without what has left it.
local function window_of(key)
  if windows[key] then
    return windows[key]
  end
  local window = {first = 0, next = 0, total = 0, last = 0}
  local known = redis.call('HGET', RATES, key)
  if known then
    local first, after, total, last = string.match(known, '^(%d+) (%d+) (%d+) (%d+)$')
    window = {first = tonumber(first), next = tonumber(after), total = tonumber(total), last = tonumber(last)}
    while window.first < window.next do
      local when, size = entry(key, window.first)
      if when > now - WINDOW then
        break
      end
      redis.call('HDEL', RATES, key .. '#' .. text(window.first))
      window.first, window.total, window.changed = window.first + 1, window.total - size, true
    end
  end
  windows[key] = window
  return window
end

local function save_windows()
  for key, window in pairs(windows) do
    if window.changed then
      redis.call('HSET', RATES, key, string.format(
        '%.0f %.0f %.0f %.0f', window.first, window.next, window.total, window.last))
    end
  end
end

local function taken(claim)
  return tonumber(redis.call('HGET', SLOTS, claim[1]) or 0)
end

local function need(claim)
  return claim[2] == 'requests' and 1 or tokens
end

-- Seconds until `over` of the amount has left the window.
local function room_in(key, window, over)
  for number = window.first, window.next - 1 do
    local when, size = entry(key, number)
    over = over - size
    if over <= 0 then
      return math.max(0.001, (when + WINDOW - now) / 1000000)
    end
  end
  return WINDOW / 1000000
end

-- Per rate claim: what remains, and seconds until it is whole again.
local function rates_now()
  local found = {}
  for _, claim in ipairs(rates) do
    if claim[2] == 'concurrent' then
      table.insert(found, {claim[1], claim[2], claim[3], claim[3] - taken(claim), 0})
    else
      local window = window_of(claim[1])
      local whole = window.first < window.next and math.max(0, (window.last + WINDOW - now) / 1000000) or 0
      table.insert(found, {claim[1], claim[2], claim[3], math.max(0, claim[3] - window.total), whole})
    end
  end
  return found
end

-- The number of the limit that is in the way and the seconds to wait: first one that this request can never pass (false),
-- else the first that is full.
local function full()
  local first, wait
  for number, claim in ipairs(rates) do
    if (claim[2] == 'tokens' and tokens or 1) > claim[3] then
      return number, false
    end
    if not first then
      local busy
      if claim[2] == 'concurrent' then
        busy = taken(claim) >= claim[3] and BUSY_RETRY
      else
        local window = window_of(claim[1])
        local over = window.total + need(claim) - claim[3]
        busy = over > 0 and room_in(claim[1], window, over)
      end
      if busy then
        first, wait = number, busy
      end
    end
  end
  return first, wait
end

local function take_rates()
  local slots = {}
  for _, claim in ipairs(rates) do
    local key = claim[1]
    if claim[2] == 'concurrent' then
      redis.call('HINCRBY', SLOTS, key, 1)
      table.insert(slots, key)
    else
      local window = window_of(key)
      redis.call('HSET', RATES, key .. '#' .. text(window.next), text(now) .. ' ' .. text(need(claim)))
      window.next, window.total = window.next + 1, math.min(window.total + need(claim), MAX)
      window.last, window.changed = now, true
      redis.call('ZADD', IDLE, text(now + WINDOW), key)
    end
  end
  return slots
end

-- The highest version of a limit that the gate was shown, and whether it is news.
local function limit_of(budget, version, limit)
  local known = redis.call('HGET', BUDGETS, budget)
  if known then
    local old, kept = string.match(known, '^(-?%d+) (-?%d+)$')
    if tonumber(old) >= version then
      return tonumber(old), tonumber(kept), false
    end
  end
  redis.call('HSET', BUDGETS, budget, text(version) .. ' ' .. text(limit))
  return version, limit, true
end

-- The budget as it is now (unconfirmed holds count as consumed), and the bucket that would take the hold.
local function look(claim)
  local name, window, until_, limit, version, hard = claim[1], claim[2], claim[3], claim[4], claim[5], claim[6]
  local budget = org .. '/' .. name
  local news
  version, limit, news = limit_of(budget, version, limit)
  local consumed, held, bucket, new = 0, 0, nil, false
  for _, part in ipairs(window) do
    bucket = budget .. '/' .. part
    local found = redis.call('HMGET', BUDGETS, bucket .. '#c', bucket .. '#h', bucket .. '#u')
    local unconfirmed = amount(found[3])
    consumed = math.min(consumed + amount(found[1]) + unconfirmed, MAX)
    held = math.min(held + amount(found[2]) - unconfirmed, MAX)
    new = not found[1] and not found[2]
  end
  if news or new then
    if until_ then
      redis.call('ZADD', DUE, 'GT', text(until_ + HOUR), 'l' .. budget)
    else
      redis.call('ZREM', DUE, 'l' .. budget)
    end
  end
  local view = {name, window[#window], until_ or false, limit, version, hard, consumed, held}
  return view, bucket, new
end

local ours, opened = state_of(run, epoch)
if not ours or not opened or math.abs(at - now) > SKEW then
  return refuse('gate_unavailable', nil, nil, 1)
end
local known = hold_of(attempt)
if known then
  return known.reply
end
local first = once and redis.call('HGET', ONCE, once)
if first then
  first = cmsgpack.unpack(first)
  return refuse('duplicate_request', nil, nil, nil, nil, nil, first[1], first[3])
end
local number, wait = full()
if number then
  local state = rates_now()
  save_windows()
  return refuse('rate_limit_exceeded', nil, nil, wait, number, state)
end

local seen, buckets, fresh = {}, {}, {}
local grant, code, culprit = want, nil, nil
for _, claim in ipairs(budgets) do
  local view, bucket, new = look(claim)
  table.insert(seen, view)
  table.insert(buckets, bucket)
  if new and view[3] then
    table.insert(fresh, {bucket, view[3]})
  end
  if view[6] then
    local left = view[4] - view[7] - view[8]
    local fits = affordable(left)
    if fits < least then
      local reason = affordable(left + view[8]) >= least and 'budget_busy' or 'insufficient_quota'
      if not code or (code == 'budget_busy' and reason == 'insufficient_quota') then
        code, culprit = reason, view[1]
      end
    end
    grant = math.min(grant, fits)
  end
end
if code then
  local state = rates_now()
  save_windows()
  return refuse(code, seen, culprit, code == 'budget_busy' and BUSY_RETRY, nil, state)
end

local hold = {amount = math.min(base + unit * grant, MAX), org = org, buckets = buckets, once = once or false,
  logged = false, unconfirmed = false}
hold.slots = take_rates()
hold.reply = cmsgpack.pack({'granted', hold.amount, grant, seen, rates_now()})
save_windows()
for _, bucket in ipairs(buckets) do
  add(bucket .. '#h', hold.amount)
end
for _, bucket in ipairs(fresh) do
  redis.call('ZADD', DUE, text(bucket[2] + HOUR), 'b' .. bucket[1])
end
keep(attempt, hold)
redis.call('ZADD', UNLOGGED, text(at), org .. '/' .. attempt)
if once then
  redis.call('HSET', ONCE, once, cmsgpack.pack({attempt, at, 'open'}))
  redis.call('ZADD', DUE, text(at + DAY), 'o' .. once)
end
return hold.reply
