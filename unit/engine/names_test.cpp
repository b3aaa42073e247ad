#include "operator/engine/names.h"

#include <gtest/gtest.h>

#include <string>

namespace collage::engine {
namespace {

TEST(Names, VolumeIsNamedByItsClaim) {
  EXPECT_EQ(volume_name("1b2c"), "pvc-1b2c");
  EXPECT_EQ(claim_uid_of("pvc-1b2c"), "1b2c");
  EXPECT_EQ(claim_uid_of("data-1b2c"), "");
  EXPECT_EQ(claim_uid_of("pvc-"), "");
}

TEST(Names, FinalizerIsSanitised) {
  EXPECT_EQ(attacher_finalizer("image.collage.storage"), "external-attacher/image-collage-storage");
  EXPECT_EQ(attacher_finalizer("A_b.c."), "external-attacher/A-b-c-X");
}

TEST(Names, KindOfDriver) {
  EXPECT_EQ(kind_of_csi_driver("image.collage.storage"), "image");
  for (const char* other : {"ebs.csi.aws.com", "collage.storage", ".collage.storage", "a.b.collage.storage",
                            "xcollage.storage", ""}) {
    EXPECT_EQ(kind_of_csi_driver(other), "") << other;
  }
}

TEST(Names, DnsLabel) {
  for (const std::string& good :
       {std::string("a"), std::string("a-1"), std::string(63, 'x'), std::string("0")})
    EXPECT_TRUE(is_dns_label(good)) << good;
  for (const std::string& bad : {std::string(""), std::string("-a"), std::string("a-"), std::string("A"),
                                 std::string("a.b"), std::string(64, 'x')}) {
    EXPECT_FALSE(is_dns_label(bad)) << bad;
  }
}

TEST(Names, DnsSubdomain) {
  for (const std::string& good : {std::string("a"), std::string("a.b-c.d"), std::string(253, 'x')})
    EXPECT_TRUE(is_dns_subdomain(good)) << good;
  for (const std::string& bad :
       {std::string(""), std::string("."), std::string("a."), std::string(".a"), std::string("a..b"),
        std::string("a.-b"), std::string("a_b"), std::string("a/b"), std::string(254, 'x')}) {
    EXPECT_FALSE(is_dns_subdomain(bad)) << bad;
  }
}

TEST(Names, Labels) {
  for (const char* good : {"team", "example.com/team", "A_b.c-d", "x/y"})
    EXPECT_TRUE(is_label_key(good)) << good;
  for (const char* bad : {"", "/team", "a/", "a b", "Example.com/x", "a/b/c", "-a", "a_"})
    EXPECT_FALSE(is_label_key(bad)) << bad;
  for (const char* good : {"", "a", "A.b_c-1"}) EXPECT_TRUE(is_label_value(good)) << good;
  for (const char* bad : {"-", "a/b", "a b", ".a"}) EXPECT_FALSE(is_label_value(bad)) << bad;
  EXPECT_FALSE(is_label_value(std::string(64, 'a')));
}

}  // namespace
}  // namespace collage::engine
