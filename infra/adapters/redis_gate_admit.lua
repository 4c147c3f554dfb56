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

-- The fields of `budgets` that the request is decided by: of each budget its limit, and the sums of each part of its window.
local function fields_of(claims)
  local fields = {}
  for _, claim in ipairs(claims) do
    local budget = org .. '/' .. claim[1]
    fields[#fields + 1] = budget
    for _, part in ipairs(claim[2]) do
      local bucket, last = budget .. '/' .. part, #fields
      fields[last + 1], fields[last + 2], fields[last + 3] = bucket .. '#c', bucket .. '#h', bucket .. '#u'
    end
  end
  return fields
end

-- The highest version of a limit that the gate was shown, and whether it is news.
local function limit_of(known, budget, version, limit)
  if known then
    local old, kept = string.match(known, '^(-?%d+) (-?%d+)$')
    if tonumber(old) >= version then
      return tonumber(old), tonumber(kept), false
    end
  end
  redis.call('HSET', BUDGETS, budget, text(version) .. ' ' .. text(limit))
  return version, limit, true
end

-- The budget whose values begin at `place`, as it is now (unconfirmed holds count as consumed), the bucket that would take the
-- hold, and whether that is new.
local function look(claim, values, place)
  local name, window, until_, limit, version, hard = claim[1], claim[2], claim[3], claim[4], claim[5], claim[6]
  local budget = org .. '/' .. name
  local news
  version, limit, news = limit_of(values[place], budget, version, limit)
  local consumed, held, new = 0, 0, false
  for part = place + 1, place + 3 * #window, 3 do
    local its_consumed, its_held, unconfirmed = values[part], values[part + 1], amount(values[part + 2])
    consumed = math.min(consumed + amount(its_consumed) + unconfirmed, MAX)
    held = math.min(held + amount(its_held) - unconfirmed, MAX)
    new = not its_consumed and not its_held
  end
  if news or new then
    if until_ then
      redis.call('ZADD', DUE, 'GT', text(until_ + HOUR), 'l' .. budget)
    else
      redis.call('ZREM', DUE, 'l' .. budget)
    end
  end
  local last = window[#window]
  return {name, last, until_ or false, limit, version, hard, consumed, held}, budget .. '/' .. last, new
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
local fields = fields_of(budgets)
local values = values_of(fields)
local place, held_in, held_now = 1, {}, {}
for number, claim in ipairs(budgets) do
  local view, bucket, new = look(claim, values, place)
  place = place + 3 * #claim[2] + 1
  held_in[number], held_now[number] = fields[place - 2], values[place - 2]
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
add_all(held_in, hold.amount, held_now)
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
