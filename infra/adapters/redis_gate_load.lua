-- A piece of the books for a partition that began `epoch` and is not open yet: 1, else 0. Loading a piece again changes
-- nothing. With a watermark it is the last one, and opens the partition.
local run, epoch, watermark, buckets, holds, onces = given[2], given[3], given[4], given[5], given[6], given[7]
local ours, opened = state_of(run, epoch)
if not ours or opened then
  return 0
end
for _, bucket in ipairs(buckets) do
  local name, until_ = bucket[1], bucket[2]
  redis.call('HSET', BUDGETS, name .. '#c', bucket[3], name .. '#h', bucket[4], name .. '#u', bucket[5])
  if until_ then
    redis.call('ZADD', DUE, text(until_ + HOUR), 'b' .. name)
  end
end
for _, hold in ipairs(holds) do
  keep(hold[1], {
    amount = hold[2], org = hold[3], buckets = hold[4], slots = {}, once = hold[5] or false, logged = true,
    unconfirmed = hold[6], reply = cmsgpack.pack({'granted', hold[2], 0, {}, {}}),
  })
end
for _, once in ipairs(onces) do
  redis.call('HSET', ONCE, once[1], cmsgpack.pack({once[2], once[3], once[4]}))
  redis.call('ZADD', DUE, text(once[3] + DAY), 'o' .. once[1])
end
if watermark then
  redis.call('HSET', STATE, 'watermark', text(watermark), 'opened', '1')
end
return 1
