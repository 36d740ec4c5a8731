module ordersaga

go 1.23.0
