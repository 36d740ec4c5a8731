-- A service takes ids in blocks of this many (apps/service-create-order/src/ids.rs).
ALTER SEQUENCE order_id_seq INCREMENT BY 4096;
