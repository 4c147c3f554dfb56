-- Applies consecutive facts if the watermark is where they start: 1, else 0 and nothing is done. Creates no hold.
-- Facts that the gate has nothing to do with are only counted.
local run, epoch, start, count, facts = given[2], given[3], given[4], given[5], given[6]

local PRUNE_EVERY = 60000000
local PRUNE_AT_ONCE = 1000

-- What the facts add to the sums, by bucket: written once for all of them, but for what a double does not hold.
local consumed, held, unconfirmed = {}, {}, {}

local function write(sums, mark)
  local fields, more = {}, {}
  for bucket, sum in pairs(sums) do
    local field = bucket .. mark
    fields[#fields + 1], more[field] = field, sum
  end
  add_all(fields, more)
end

local function sum_up(sums, mark, buckets, number)
  for _, bucket in ipairs(buckets) do
    local sum = (sums[bucket] or 0) + number
    if math.abs(sum) > MAX then
      add(bucket .. mark, sums[bucket])
      sum = number
    end
    sums[bucket] = sum
  end
end

local function outcome(attempt, hold, what)
  local packed = hold.once and redis.call('HGET', ONCE, hold.once)
  if packed then
    local entry = cmsgpack.unpack(packed)
    if entry[1] == attempt then
      redis.call('HSET', ONCE, hold.once, cmsgpack.pack({entry[1], entry[2], what}))
    end
  end
end

local function logged(attempt, hold)
  redis.call('ZREM', UNLOGGED, hold.org .. '/' .. attempt)
  hold.logged = true
end

local function finish(attempt, hold, what, tokens)
  redis.call('HDEL', HOLDS, attempt)
  redis.call('ZREM', UNLOGGED, hold.org .. '/' .. attempt)
  release(hold, tokens)
  outcome(attempt, hold, what)
  sum_up(held, '#h', hold.buckets, -hold.amount)
  if hold.unconfirmed then
    sum_up(unconfirmed, '#u', hold.buckets, -hold.amount)
  end
end

local function settle(type, attempt, cost, tokens)
  local hold = hold_of(attempt)
  if not hold then
    return
  end
  if type == 'RequestAdmitted' then
    logged(attempt, hold)
    keep(attempt, hold)
  elseif type == 'RequestCompleted' then
    finish(attempt, hold, 'completed', tokens)
    sum_up(consumed, '#c', hold.buckets, cost)
  elseif type == 'RequestFailed' then
    finish(attempt, hold, 'failed', 0)
  elseif type == 'RequestVoided' then
    if not hold.logged then
      finish(attempt, hold, 'void', 0)
    end
  elseif type == 'RequestWrittenOff' then
    if hold.unconfirmed then
      finish(attempt, hold, 'written_off')
    end
  elseif type == 'RequestUnconfirmed' then
    if hold.logged and not hold.unconfirmed then
      hold.unconfirmed = true
      release(hold)
      outcome(attempt, hold, 'unconfirmed')
      sum_up(unconfirmed, '#u', hold.buckets, hold.amount)
      keep(attempt, hold)
    end
  end
end

-- A window, or a field of `shares`.
local function forget_rate(key)
  local first, after = string.match(redis.call('HGET', RATES, key) or '0 0', '^(%d+) (%d+)')
  for number = tonumber(first), tonumber(after) - 1 do
    redis.call('HDEL', RATES, key .. '#' .. text(number))
  end
  redis.call('HDEL', RATES, key)
  redis.call('HDEL', SHARES, key)
  redis.call('ZREM', IDLE, key)
end

-- Forgets buckets that no window counts any more and limits of such buckets only, once-keys past their day and idle rate
-- keys. What still holds something is asked again a minute later. False: there may be more.
local function prune(now)
  local limit = '(' .. text(now)
  local due = redis.call('ZRANGEBYSCORE', DUE, '-inf', limit, 'LIMIT', 0, PRUNE_AT_ONCE)
  for _, member in ipairs(due) do
    local name = string.sub(member, 2)
    if string.sub(member, 1, 1) == 'o' then
      redis.call('HDEL', ONCE, name)
      redis.call('ZREM', DUE, member)
    elseif string.sub(member, 1, 1) == 'l' then
      redis.call('HDEL', BUDGETS, name)
      redis.call('ZREM', DUE, member)
    elseif amount(redis.call('HGET', BUDGETS, name .. '#h')) == 0 then
      redis.call('HDEL', BUDGETS, name .. '#c', name .. '#h', name .. '#u')
      redis.call('ZREM', DUE, member)
    else
      redis.call('ZADD', DUE, text(now + PRUNE_EVERY), member)
    end
  end
  local idle = redis.call('ZRANGEBYSCORE', IDLE, '-inf', limit, 'LIMIT', 0, PRUNE_AT_ONCE)
  for _, key in ipairs(idle) do
    forget_rate(key)
  end
  return #due < PRUNE_AT_ONCE and #idle < PRUNE_AT_ONCE
end

local ours, opened, watermark = state_of(run, epoch)
if not ours or not opened or watermark ~= start then
  return 0
end
-- A removal first: when memory is full, a script that began with one is let through, and settling is what frees memory.
redis.call('HDEL', STATE, 'none')
for _, fact in ipairs(facts) do
  settle(fact[1], fact[2], fact[3], fact[4])
end
write(consumed, '#c')
write(held, '#h')
write(unconfirmed, '#u')
redis.call('HSET', STATE, 'watermark', text(start + count))
local now = clock()
local pruned = tonumber(redis.call('HGET', STATE, 'pruned') or 0)
if now - pruned > PRUNE_EVERY and prune(now) then
  redis.call('HSET', STATE, 'pruned', text(now))
end
return 1
