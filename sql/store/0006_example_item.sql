-- What the examples in the API's documents order: there is enough of it for whoever tries them. Its
-- id is none that the first items get; where it is somebody's item already, that stays.
INSERT INTO item (item_id, seller_id, name, price, quantity)
OVERRIDING SYSTEM VALUE VALUES (1000, 1, 'Example item', 1000, 1000000000)
ON CONFLICT (item_id) DO NOTHING;
