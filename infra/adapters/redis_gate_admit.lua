-- All holds or none. Answers MessagePack: {"granted", hold, grant, seen, rates} or
-- {code, seen, budget, first, outcome, retry_after, number of the rate claim, rates}.
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
local limits = #rates > 0 and rate_limits(rates, tokens, now)
if limits then
  local number, wait = limits.in_the_way()
  if number then
    local state = limits.state()
    limits.save()
    return refuse('rate_limit_exceeded', nil, nil, wait, number, state)
  end
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
  local state = limits and limits.state()
  if limits then
    limits.save()
  end
  return refuse(code, seen, culprit, code == 'budget_busy' and BUSY_RETRY, nil, state)
end

local hold = {amount = math.min(base + unit * grant, MAX), org = org, buckets = buckets, once = once or false,
  logged = false, unconfirmed = false}
local state
if limits then
  hold.slots, hold.counts = limits.take()
  state = limits.state()
  limits.save()
end
hold.reply = cmsgpack.pack({'granted', hold.amount, grant, seen, state or {}})
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
