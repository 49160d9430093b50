package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const ada = `{"name":"Ada","email":"ada@example.com"}`

func TestOrderGoesThroughTheShop(t *testing.T) {
	t.Parallel()
	s := startShop(t, newConfig(t, "-vip-after", "2"))
	customer := post(t, s, "/customers", ada).CustomerID
	body := fmt.Sprintf(`{"customerId":%d,"items":[{"productId":2,"quantity":3},{"productId":1,"quantity":1}]}`, customer)
	order := post(t, s, "/orders", body).OrderID
	until(t, "the work on the order", func() bool {
		code, body := request(t, s, http.MethodGet, fmt.Sprintf("/orders/%d", order), "")
		var state orderState
		if err := json.Unmarshal([]byte(body), &state); err != nil || code != http.StatusOK {
			t.Fatalf("%d %s: %v", code, body, err)
		}
		if state.OrderID != order || state.CustomerID != customer || state.TotalAmount.String() != "6.96" { // 3 × 1.99 + 0.99
			t.Fatalf("%s", body)
		}
		return state.Reserved && state.Emailed
	})
	if n := count(t, s.db, `select reserved from shop_stock where product_id = 2`); n != 3 {
		t.Errorf("%d pieces reserved, want 3", n)
	}
	until(t, "the welcome", func() bool { return count(t, s.db, `select count(*) from shop_emails where kind = 'welcome'`) == 1 })
	until(t, "the count of it", func() bool { return count(t, s.db, `select orders from shop_customers`) == 1 })
	if n := count(t, s.db, `select vip from shop_customers`); n != 0 {
		t.Error("a VIP after one order")
	}
	for range 2 {
		post(t, s, "/orders", body)
	}
	until(t, "the greeting", func() bool { return count(t, s.db, `select count(*) from shop_emails where kind = 'vip'`) == 1 })
	until(t, "the count", func() bool { return count(t, s.db, `select orders from shop_customers where vip = 1`) == 3 })
}

func TestBadRequestsAreRefused(t *testing.T) {
	t.Parallel()
	s := startShop(t, newConfig(t, "-role", "api"))
	customer := post(t, s, "/customers", ada).CustomerID
	order := func(items string) string { return fmt.Sprintf(`{"customerId":%d,"items":%s}`, customer, items) }
	const item = `{"productId":1,"quantity":1}`
	for name, c := range map[string]struct {
		method, path, body string
		code               int
		want               []string
	}{
		"no JSON":           {"POST", "/customers", "Ada", 400, []string{"can't be read"}},
		"empty":             {"POST", "/orders", "", 400, []string{"can't be read"}},
		"unknown field":     {"POST", "/customers", `{"name":"Ada","email":"a@b.c","vip":true}`, 400, []string{`unknown field \"vip\"`}},
		"two objects":       {"POST", "/customers", ada + ada, 400, []string{"behind the JSON object"}},
		"wrong type":        {"POST", "/orders", `{"customerId":"1"}`, 400, []string{"customerId"}},
		"too large":         {"POST", "/customers", `{"name":"` + strings.Repeat("a", maxBody) + `"}`, 413, []string{"64 KiB"}},
		"two faults":        {"POST", "/customers", `{"name":"","email":"nobody"}`, 422, []string{"name takes", "email"}},
		"long name":         {"POST", "/customers", `{"name":"` + strings.Repeat("é", maxName+1) + `","email":"a@b.c"}`, 422, []string{"name takes"}},
		"long address":      {"POST", "/customers", `{"name":"A","email":"` + strings.Repeat("a", maxEmail) + `@b.c"}`, 422, []string{"email takes"}},
		"NUL":               {"POST", "/customers", `{"name":"A\u0000","email":"a\u0000@b.c"}`, 422, []string{"name takes", "email takes"}},
		"no customer":       {"POST", "/orders", `{"items":[` + item + `]}`, 422, []string{"customerId is not positive"}},
		"unknown customer":  {"POST", "/orders", `{"customerId":999,"items":[` + item + `]}`, 422, []string{"no such customer"}},
		"no items":          {"POST", "/orders", order(`[]`), 422, []string{"items takes 1 to 100"}},
		"many items":        {"POST", "/orders", order(`[` + strings.Repeat(item+",", maxItems) + item + `]`), 422, []string{"there are 101"}},
		"unknown product":   {"POST", "/orders", order(`[{"productId":101,"quantity":1},{"productId":0,"quantity":1}]`), 422, []string{"items[0].productId", "items[1].productId"}},
		"quantity":          {"POST", "/orders", order(`[{"productId":1,"quantity":0},{"productId":1,"quantity":1001}]`), 422, []string{"items[0].quantity", "items[1].quantity"}},
		"order that is not": {"GET", "/orders/999", "", 404, []string{"no such order"}},
		"order by name":     {"GET", "/orders/first", "", 400, []string{"is a number"}},
		"wrong method":      {"DELETE", "/orders/1", "", 405, nil},
		"wrong path":        {"GET", "/customers/1", "", 404, nil},
	} {
		code, body := request(t, s, c.method, c.path, c.body)
		if code != c.code {
			t.Errorf("%s: %d, want %d: %s", name, code, c.code, body)
		}
		for _, text := range c.want {
			if !strings.Contains(body, text) {
				t.Errorf("%s: %q is not in %s", name, text, body)
			}
		}
	}
	if n := count(t, s.db, `select count(*) from shop_orders`); n != 0 {
		t.Errorf("%d orders were written", n)
	}
	if n := count(t, s.db, `select count(*) from shop_messages`); n != 1 {
		t.Errorf("%d events were published, want that of the customer", n)
	}
}
