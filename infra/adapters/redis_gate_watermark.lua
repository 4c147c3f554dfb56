-- The next offset to settle; nothing while the partition is closed.
local state = redis.call('HMGET', STATE, 'node', 'opened', 'watermark')
if state[1] ~= ARGV[1] or state[2] ~= '1' then
  return false
end
return state[3]
