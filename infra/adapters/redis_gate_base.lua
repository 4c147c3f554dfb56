-- What every script of the gate begins with. All state of a facts partition is in these nine keys (one hash slot), and
-- none of them ever expires. ARGV: the run_id of the server this connection talks to, and the arguments (MessagePack).
--
--   state     run, node, epoch, opened, watermark, pruned
--   budgets   <org>/<budget>/<bucket>#c #h #u: consumed, held, and the part of held that is unconfirmed;
--             <org>/<budget>: version and limit
--   holds     attempt -> what it holds (see `keep`)       unlogged  <org>/<attempt> by accounted_at
--   once      key -> {request, accounted_at, outcome}     slots     concurrency taken, by rate key
--   rates     <key>: first, next, total; <key>#<n>: at, amount
--   due       b<bucket>, l<org>/<budget> (its limit) and o<once key> by the time they can be forgotten; idle: rate keys
--             likewise
--
-- Times are microseconds since 1970, money is nano-dollars: whole numbers that a double holds exactly up to 2^53. What is
-- summed is summed by HINCRBY in 64 bits; only what is read into Lua saturates.
local STATE, BUDGETS, HOLDS, UNLOGGED, ONCE, SLOTS, RATES, DUE, IDLE = unpack(KEYS)
local given = cmsgpack.unpack(ARGV[2])

local MAX = 9007199254740992
local WINDOW = 60000000
local HOUR = 3600000000
local DAY = 24 * HOUR

-- `..`, tostring and cjson lose digits from 1e14 on; adding 0 turns -0 into 0.
local function text(number)
  return string.format('%.0f', number + 0)
end

local function amount(value)
  return math.min(tonumber(value or 0), MAX)
end

local function clock()
  if given[1] then
    return given[1]
  end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- A server that was restarted or promoted is not the one that `begin` wrote down: what it remembers is of the past.
local function state_of(run, epoch)
  local state = redis.call('HMGET', STATE, 'run', 'node', 'epoch', 'opened', 'watermark')
  local ours = state[1] == run and state[2] == ARGV[1] and tonumber(state[3]) == epoch
  return ours, state[4] == '1', tonumber(state[5])
end

local function add(field, number)
  local answer = redis.pcall('HINCRBY', BUDGETS, field, text(number))
  if type(answer) == 'table' and answer.err then
    if not string.find(answer.err, 'overflow', 1, true) then
      error(answer.err)
    end
    redis.call('HSET', BUDGETS, field, '9223372036854775807')
  end
end

local function hold_of(attempt)
  local packed = redis.call('HGET', HOLDS, attempt)
  if not packed then
    return nil
  end
  local known = cmsgpack.unpack(packed)
  return {
    amount = known[1], org = known[2], buckets = known[3], slots = known[4], once = known[5],
    logged = known[6], unconfirmed = known[7], reply = known[8],
  }
end

local function keep(attempt, hold)
  redis.call('HSET', HOLDS, attempt, cmsgpack.pack({
    hold.amount, hold.org, hold.buckets, hold.slots, hold.once, hold.logged, hold.unconfirmed, hold.reply,
  }))
end

local function free_slots(hold)
  for _, key in ipairs(hold.slots) do
    if redis.call('HINCRBY', SLOTS, key, -1) <= 0 then
      redis.call('HDEL', SLOTS, key)
    end
  end
  hold.slots = {}
end
